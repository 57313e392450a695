// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/uri.h"

#include "colo/handlers/refusals.h"

#include <optional>

namespace colo {
namespace {

std::string_view scheme_of(std::string_view uri)
{
    const std::size_t colon = uri.find(':');
    return colon == std::string_view::npos ? std::string_view() : uri.substr(0, colon);
}

// Schemes of the interface that cannot carry a protected guest.
std::optional<Refused> refused_scheme(std::string_view scheme)
{
    for (const Refused what : {Refused::scheme_exec, Refused::scheme_fd, Refused::scheme_vsock, Refused::scheme_rdma})
        if (scheme == refusal(what).name) return what;
    return std::nullopt;
}

// HOST:PORT or [v6]:PORT, options after a comma.
bool valid_inet(std::string_view address)
{
    address = address.substr(0, address.find(','));
    std::size_t colon = address.find(':');
    if (!address.empty() && address.front() == '[') {
        const std::size_t end = address.find(']');
        if (end == std::string_view::npos) return false;
        colon = end + 1;
    }
    return colon < address.size() && address[colon] == ':' && colon + 1 < address.size() &&
           address.find(':', colon + 1) == std::string_view::npos;
}

}  // namespace

bool several_connections(std::string_view uri)
{
    const std::string_view scheme = scheme_of(uri);
    return scheme == "tcp" || scheme == "unix" || scheme == "vsock";
}

UriKind classify_uri(std::string_view uri)
{
    const std::string_view scheme = scheme_of(uri);
    if (scheme.empty()) return UriKind::unknown;
    const std::string_view rest = uri.substr(scheme.size() + 1);
    if (scheme == "tcp") return valid_inet(rest) ? UriKind::usable : UriKind::malformed;
    if (scheme == "unix") return rest.empty() ? UriKind::malformed : UriKind::usable;
    return refused_scheme(scheme) ? UriKind::no_transport : UriKind::unknown;
}

std::string uri_error(std::string_view uri)
{
    const std::string scheme(scheme_of(uri));
    if (const auto what = refused_scheme(scheme)) return refusal_text(refusal(*what), scheme);
    return "error parsing address '" + std::string(uri.substr(scheme.size() + 1)) + "'";
}

}  // namespace colo
