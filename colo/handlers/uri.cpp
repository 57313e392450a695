// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/uri.h"

#include "colo/handlers/refusals.h"
#include "core/inet_address.h"

#include <sys/un.h>

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

// The text of an address that a scheme does not take; empty for a proper one.
std::string address_error(std::string_view scheme, std::string_view address)
{
    if (scheme == "tcp") {
        const auto inet = parse_inet_address(address);
        return inet ? std::string() : inet.error().text;
    }
    if (scheme == "unix") {
        if (address.empty()) return "invalid Unix socket address";
        if (address.size() >= sizeof sockaddr_un{}.sun_path)
            return "UNIX socket path '" + std::string(address.substr(0, kShownMax)) + "' is too long";
        return address.find('\0') == std::string_view::npos ? "" : "invalid Unix socket address";
    }
    // CID:PORT, both longer than those of tcp may be.
    const std::size_t colon = address.find(':');
    const bool whole = colon != std::string_view::npos && colon > 0 && colon + 1 < address.size();
    return scheme == "vsock" && !whole ? "error parsing address '" + std::string(address.substr(0, kShownMax)) + "'"
                                       : std::string();
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
    const bool carries = scheme == "tcp" || scheme == "unix";
    if (!carries && !refused_scheme(scheme)) return UriKind::unknown;
    if (!address_error(scheme, uri.substr(scheme.size() + 1)).empty()) return UriKind::malformed;
    if (scheme == refusal(Refused::scheme_fd).name) return UriKind::descriptor;
    return carries ? UriKind::usable : UriKind::no_transport;
}

std::string descriptor_name(std::string_view uri)
{
    return std::string(uri.substr(scheme_of(uri).size() + 1));
}

std::string uri_error(std::string_view uri)
{
    const std::string scheme(scheme_of(uri));
    const std::string wrong = address_error(scheme, uri.substr(scheme.size() + 1));
    if (!wrong.empty()) return wrong;
    const auto what = refused_scheme(scheme);
    return what ? refusal_text(refusal(*what), scheme) : std::string();
}

}  // namespace colo
