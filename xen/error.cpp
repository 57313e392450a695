// SPDX-License-Identifier: Apache-2.0
#include "xen/control.h"

#include <cerrno>

namespace colo::xen {

Error hypercall_error(std::string_view what, int err)
{
    Error out = errno_error(what, err);
    switch (err) {
    case ESRCH: return make_error(Errc::guest_died, std::string(what) + ": there is no such domain");
    case EBUSY: out.code = Errc::refused; break;
    case ENODEV:
    case ENOENT:
        // The devices that lead to the hypervisor are not there.
        out.code = Errc::unsupported;
        break;
    case ENODATA: out.code = Errc::invalid; break;   // a context that ends before its end
    default: break;
    }
    return out;
}

}  // namespace colo::xen
