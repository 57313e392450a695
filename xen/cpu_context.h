// SPDX-License-Identifier: Apache-2.0
#pragma once

// What can be read from an HVM context (Control::context): records, each with a type, a number, a length and that many bytes.

#include "xen/control.h"

namespace colo::xen {

// A header first, at least one CPU, each record inside of the blob, an end. Errc::corrupt or limit.
Result<void> check_context(ByteView context);
// One that was checked is of a domain with so many vCPUs. Errc::corrupt: it has state of another one.
Result<void> check_vcpus(ByteView context, std::uint32_t vcpus);

// The first CPU runs a kernel: it pages with PAE, which 64-bit and most 32-bit kernels need. hvmloader, which lays out the memory,
// does not (it pages for a test of its own, without PAE), nor does SeaBIOS; OVMF does, when hvmloader has ended. From then on the
// memory map stays as it is. A context that is no context: no.
bool runs_kernel(ByteView context);

}  // namespace colo::xen
