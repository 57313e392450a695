// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace colo {

void throw_exception_from_error(const Error& error, const boost::source_location&)
{
    // Reached only by calling value() on a failed Result, which is a bug in the caller.
    throw std::logic_error("unchecked error: " + error.text);
}

namespace {

Errc code_of_errno(int err)
{
    switch (err) {
    case ETIMEDOUT: return Errc::timed_out;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN: return Errc::closed;
    case ECONNREFUSED:
    case EACCES:
    case EPERM: return Errc::refused;
    case EINVAL: return Errc::invalid;
    case ENOSPC:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return Errc::limit;
    case EOPNOTSUPP:
    case ENOSYS: return Errc::unsupported;
    case ECANCELED: return Errc::cancelled;
    default: return Errc::failed;
    }
}

}  // namespace

Error errno_error(std::string_view what, int err)
{
    return Error{code_of_errno(err), std::string(what) + ": " + std::generic_category().message(err)};
}

Error with_context(std::string_view context, Error error)
{
    error.text.insert(0, std::string(context) + ": ");
    return error;
}

const char* to_string(Errc code)
{
    switch (code) {
    case Errc::failed: return "failed";
    case Errc::timed_out: return "timed-out";
    case Errc::closed: return "closed";
    case Errc::refused: return "refused";
    case Errc::invalid: return "invalid";
    case Errc::corrupt: return "corrupt";
    case Errc::limit: return "limit";
    case Errc::unsupported: return "unsupported";
    case Errc::guest_died: return "guest-died";
    case Errc::cancelled: return "cancelled";
    }
    return "unknown";
}

}  // namespace colo
