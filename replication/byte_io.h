// SPDX-License-Identifier: Apache-2.0
#pragma once

// Little-endian encoding of the wire and of chunk headers. The reader never throws and never reads past the end: the
// first problem is kept, later reads return zeros, and finish() reports it. Counts and lengths are checked against the
// caller's bound *and* against what is left in the input before anything is allocated.

#include "core/error.h"
#include "core/types.h"

#include <bit>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace colo::replication {

static_assert(std::endian::native == std::endian::little, "loads and stores below are plain copies");

template <class Unsigned>
Unsigned load_le(const std::uint8_t* from)
{
    static_assert(std::is_unsigned_v<Unsigned>);
    Unsigned value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Unsigned>
void store_le(std::uint8_t* to, Unsigned value)
{
    static_assert(std::is_unsigned_v<Unsigned>);
    std::memcpy(to, &value, sizeof value);
}

// Appends to `out`, which it does not own.
class ByteWriter {
public:
    explicit ByteWriter(Bytes& out) : out_(out) {}

    void u8(std::uint8_t v) { out_.push_back(v); }
    void u16(std::uint16_t v) { put(v); }
    void u32(std::uint32_t v) { put(v); }
    void u64(std::uint64_t v) { put(v); }
    void raw(ByteView bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
    void count(std::size_t n) { u32(static_cast<std::uint32_t>(n)); }
    void blob(ByteView bytes)
    {
        count(bytes.size());
        raw(bytes);
    }
    void text(std::string_view s)
    {
        count(s.size());
        out_.insert(out_.end(), s.begin(), s.end());
    }

private:
    template <class Unsigned>
    void put(Unsigned value)
    {
        const std::size_t at = out_.size();
        out_.resize(at + sizeof value);
        store_le(out_.data() + at, value);
    }
    Bytes& out_;
};

class ByteReader {
public:
    // `what` names the input in error texts and must outlive the reader.
    ByteReader(ByteView in, std::string_view what) : in_(in), what_(what) {}

    std::uint8_t u8(const char* field) { return get<std::uint8_t>(field); }
    std::uint16_t u16(const char* field) { return get<std::uint16_t>(field); }
    std::uint32_t u32(const char* field) { return get<std::uint32_t>(field); }
    std::uint64_t u64(const char* field) { return get<std::uint64_t>(field); }

    ByteView raw(const char* field, std::size_t n)
    {
        if (failed()) return {};
        if (n > in_.size()) {
            fail(field, "is cut off");
            return {};
        }
        const ByteView taken = in_.first(n);
        in_ = in_.subspan(n);
        return taken;
    }
    ByteView rest() { return raw("rest", in_.size()); }

    // An element count: at most `max`, and each element takes at least `element_bytes` of what is left.
    std::size_t count(const char* field, std::size_t max, std::size_t element_bytes)
    {
        const std::size_t n = u32(field);
        if (n > max) return fail(field, "has " + std::to_string(n) + " elements, at most " + std::to_string(max)), 0;
        if (n * element_bytes > in_.size()) return fail(field, "is cut off"), 0;
        return n;
    }
    ByteView blob(const char* field, std::size_t max) { return raw(field, count(field, max, 1)); }
    std::string text(const char* field, std::size_t max)
    {
        const ByteView bytes = blob(field, max);
        return {bytes.begin(), bytes.end()};
    }
    // A wire enum whose valid values are first..last (0 is never valid).
    template <class Enum>
    Enum enumeration(const char* field, Enum first, Enum last)
    {
        const std::uint8_t v = u8(field);
        if (v < static_cast<std::uint8_t>(first) || v > static_cast<std::uint8_t>(last)) {
            if (!failed()) fail(field, "has the unknown value " + std::to_string(v));
            return first;
        }
        return static_cast<Enum>(v);
    }

    void fail(const char* field, const std::string& problem)
    {
        if (!failed()) error_ = std::string(what_) + ": " + field + " " + problem;
    }
    bool failed() const { return !error_.empty(); }

    // Errc::corrupt if anything failed or bytes are left over.
    Result<void> finish()
    {
        if (!failed() && !in_.empty()) fail("end", "has " + std::to_string(in_.size()) + " bytes too many");
        if (failed()) return make_error(Errc::corrupt, error_);
        return {};
    }

private:
    template <class Unsigned>
    Unsigned get(const char* field)
    {
        const ByteView bytes = raw(field, sizeof(Unsigned));
        return failed() ? Unsigned{0} : load_le<Unsigned>(bytes.data());
    }
    ByteView in_;
    std::string_view what_;
    std::string error_;
};

}  // namespace colo::replication
