// SPDX-License-Identifier: Apache-2.0
#pragma once

// Helpers of the generated codec; include schema/codec.h instead.

#include "schema/value.h"

#include <bit>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

namespace colo::schema {

template <class T>
requires std::is_arithmetic_v<T> Value encode(T value)
{
    if constexpr (std::is_same_v<T, bool> || std::is_floating_point_v<T>)
        return value;
    else if constexpr (std::is_signed_v<T>)
        return static_cast<std::int64_t>(value);
    else
        return static_cast<std::uint64_t>(value);
}
inline Value encode(std::nullptr_t)
{
    return nullptr;
}
inline Value encode(const std::string& value)
{
    return value;
}
inline Value encode(const Value& value)
{
    return value;
}

template <class T>
Value encode(const std::vector<T>& values)
{
    Array array;
    array.reserve(values.size());
    for (const T& value : values) array.push_back(encode(value));
    return array;
}

template <class T>
void write_member(Object& out, const char* name, const T& value)
{
    out.append(name, encode(value));
}

template <class T>
void write_member(Object& out, const char* name, const std::optional<T>& value)
{
    if (value) out.append(name, encode(*value));
}

template <class T>
void write_member(Object& out, const char* name, const OptionalBox<T>& value)
{
    if (value) out.append(name, encode(*value));
}

template <class T>
Value encode_object(const T& value)
{
    Object out;
    write_members(value, out);
    return out;
}

inline Value encode_alternative(std::monostate)
{
    return nullptr;
}
template <class T>
Value encode_alternative(const T& value)
{
    return encode(value);
}

template <class T>
bool outside(const std::optional<T>& value, std::uint64_t min, std::uint64_t max)
{
    return value && (*value < min || *value > max);
}

template <class T>
bool outside_power_of_two(const std::optional<T>& value, std::uint64_t min, std::uint64_t max)
{
    return outside(value, min, max) || (value && !std::has_single_bit(*value));
}

template <class T>
void merge_member(const std::optional<T>& from, std::optional<T>& into)
{
    if (from) into = from;
}

// An alternate of string and null onto a string: null clears it.
template <class Alternate>
void merge_member(const std::optional<Alternate>& from, std::optional<std::string>& into)
{
    if (!from) return;
    const std::string* text = std::get_if<std::string>(&from->value);
    into = text != nullptr ? *text : std::string();
}

}  // namespace colo::schema
