// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace colo {

// What a migration URI asks for, as far as it can be said without looking names or descriptors up.
enum class UriKind : std::uint8_t {
    usable,        // tcp:HOST:PORT, unix:PATH
    malformed,     // a scheme that the interface has, but no address
    descriptor,    // fd:NAME
    no_transport,  // a known scheme that cannot carry a protected guest
    unknown,
};

UriKind classify_uri(std::string_view uri);

// Of fd:NAME.
std::string descriptor_name(std::string_view uri);

// Whether streams to or from such an address can have companions.
bool several_connections(std::string_view uri);

// For malformed, descriptor and no_transport: the text for the operator.
std::string uri_error(std::string_view uri);

}  // namespace colo
