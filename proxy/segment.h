// SPDX-License-Identifier: Apache-2.0
#pragma once

// Software segmentation of one TCP/IPv4 frame with a GSO header, for a port that has no offload: what a network card
// does with such a frame (RFC 793 numbering, RFC 6864 identification). Every segment has a full checksum and an empty
// vnet header.

#include "core/types.h"

#include <vector>

namespace colo::proxy {

// `frame` begins with its vnet header. Empty: not a TCP/IPv4 frame with a segment size, or malformed.
std::vector<Bytes> segment_tcp4(ByteView frame);

}  // namespace colo::proxy
