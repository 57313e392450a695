// SPDX-License-Identifier: Apache-2.0
#pragma once

// Errors are values. A function that can fail returns Result<T>; exceptions do not cross a module.
// An Error is written for the person who can act on it: what failed, why, and what to do. It is shown once,
// at the place that decides; everybody in between adds context with `with_context` and passes it on.

#include <boost/system/result.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace colo {

enum class Errc : std::uint8_t {
    failed = 1,      // no better word
    timed_out,       // a deadline passed
    closed,          // the other end went away
    refused,         // the other end, or a rule, said no
    invalid,         // bad input: configuration, frame, argument
    corrupt,         // checksum or structure of received data is wrong
    limit,           // a bound of ours was reached
    unsupported,     // this guest or host cannot do it
    guest_died,      // the device model or the domain is gone
    cancelled,       // stopped on request
};

struct Error {
    Errc code = Errc::failed;
    std::string text;  // "open /x: No such file or directory"; no trailing newline

    bool operator==(const Error&) const = default;
};

[[noreturn]] void throw_exception_from_error(const Error& error, const boost::source_location& where);

template <class T>
using Result = boost::system::result<T, Error>;

inline Error make_error(Errc code, std::string text) { return Error{code, std::move(text)}; }

// "what: strerror(err)". ETIMEDOUT, EPIPE, ECONNRESET etc. map to their Errc.
Error errno_error(std::string_view what, int err);

// Puts "context: " in front of the text and keeps the code.
Error with_context(std::string_view context, Error error);

const char* to_string(Errc code);

}  // namespace colo
