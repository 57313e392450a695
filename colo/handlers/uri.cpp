// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/uri.h"

namespace colo {
namespace {

constexpr std::string_view kUnusable[] = {"exec", "fd", "vsock", "rdma"};

std::string_view scheme_of(std::string_view uri)
{
    const std::size_t colon = uri.find(':');
    return colon == std::string_view::npos ? std::string_view() : uri.substr(0, colon);
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

UriKind classify_uri(std::string_view uri)
{
    const std::string_view scheme = scheme_of(uri);
    if (scheme.empty()) return UriKind::unknown;
    const std::string_view rest = uri.substr(scheme.size() + 1);
    if (scheme == "tcp") return valid_inet(rest) ? UriKind::usable : UriKind::malformed;
    if (scheme == "unix") return rest.empty() ? UriKind::malformed : UriKind::usable;
    for (const std::string_view unusable : kUnusable)
        if (scheme == unusable) return UriKind::no_transport;
    return UriKind::unknown;
}

std::string uri_error(std::string_view uri)
{
    const std::string scheme(scheme_of(uri));
    if (classify_uri(uri) == UriKind::no_transport)
        return "A guest cannot be protected over '" + scheme +
               ":': that needs several connections in both directions, use tcp: or unix:";
    return "error parsing address '" + std::string(uri.substr(scheme.size() + 1)) + "'";
}

}  // namespace colo
