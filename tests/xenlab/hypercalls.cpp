// SPDX-License-Identifier: Apache-2.0
#include "hypercalls.h"

#include <cstdarg>
#include <cstring>
#include <linux/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

colo::xen::HypercallCount g_count;   // these programs have one thread that talks to the hypervisor

// From Linux' <xen/privcmd.h>, which no package installs.
constexpr unsigned kPrivcmd = 'P';
constexpr unsigned kMapBatch = 3, kMapBatchWithErrors = 4, kLast = 7;

void count(unsigned long request, const void* argument)
{
    if (_IOC_TYPE(request) != kPrivcmd || _IOC_NR(request) > kLast) return;
    ++g_count.calls;
    if (_IOC_NR(request) != kMapBatch && _IOC_NR(request) != kMapBatchWithErrors) return;
    std::uint32_t frames = 0;
    std::memcpy(&frames, argument, sizeof frames);   // the first member of both
    ++g_count.map_calls;
    g_count.frames_mapped += frames;
}

}  // namespace

// In place of libc's, for the libraries of Xen as well: the program's own symbols come first.
extern "C" [[gnu::visibility("default")]] int ioctl(int fd, unsigned long request, ...) noexcept
{
    std::va_list arguments;
    va_start(arguments, request);
    void* argument = va_arg(arguments, void*);
    va_end(arguments);
    count(request, argument);
    return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}

namespace colo::xen {

HypercallCount hypercalls() { return g_count; }

}  // namespace colo::xen
