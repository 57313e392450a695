// SPDX-License-Identifier: Apache-2.0
#pragma once

// The guest's serial console in a file of bounded size. QEMU writes into a socket that a thread of ours reads at once,
// also when nothing can be stored: a guest that writes for ever neither fills the disk nor has to wait.

#include "core/error.h"
#include "qemu/process.h"

#include <cstdint>
#include <memory>
#include <string>

namespace colo::qemu {

// FILE and FILE.1 together. FILE has the newest output and begins anew when it has half of that.
inline constexpr std::uint64_t kSerialLogBytes = 8u << 20;

class SerialLog {
public:
    // Takes the read end. The file begins empty and an older FILE.1 goes. A file system that does not answer within a
    // second is not waited for either.
    static Result<std::unique_ptr<SerialLog>> start(Fd from, std::string file, std::uint64_t limit = kSerialLogBytes);
    // What was written until now is stored, unless the file system does not answer: that is not waited for, and the thread
    // ends when it does.
    ~SerialLog();
    SerialLog(const SerialLog&) = delete;
    SerialLog& operator=(const SerialLog&) = delete;

private:
    struct Log;
    explicit SerialLog(std::shared_ptr<Log> log) : log_(std::move(log)) {}
    const std::shared_ptr<Log> log_;   // and the thread's
};

}  // namespace colo::qemu
