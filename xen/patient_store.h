// SPDX-License-Identifier: Apache-2.0
#pragma once

// A xenstored that hangs answers nobody, and libxenstore waits for it without an end. Here every question has one.

#include "core/types.h"
#include "xen/store.h"

#include <functional>
#include <memory>

namespace colo::xen {

using OpenStore = std::function<Result<std::unique_ptr<Store>>()>;

// Opens a store, and asks it, on a thread of its own. Errc::timed_out: no answer within `patience`. While that answer is still
// owed every further question fails at once, so that many questions in a row wait once; when it has come, it is dropped and the
// store is as good as before. Destroying it does not wait for an answer: connection and thread end when it comes.
Result<std::unique_ptr<Store>> open_patient_store(const OpenStore& open, Duration patience);

}  // namespace colo::xen
