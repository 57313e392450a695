// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checked decoding of JSON values into the generated types. Members are visited in schema order, the first error wins,
// unexpected members are reported after all known ones were fine. Nothing is converted silently: "1" and 1.0 are no
// integers, null is not absent.
//
// Errors name the full path of the value ("capabilities[0].state"); too wide integers and unknown enum values name only
// its last member, "null" for an array element.

#include "core/error.h"
#include "schema/value.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace colo::schema {

class Decoder {
public:
    enum class Unexpected : std::uint8_t { refuse, ignore };  // ignore: answers of a newer daemon

    explicit Decoder(Unexpected unexpected = Unexpected::refuse) : unexpected_(unexpected) {}

    bool ok() const { return text_.empty(); }
    const std::string& text() const { return text_; }
    bool ignores_unexpected() const { return unexpected_ == Unexpected::ignore; }

    // All return false, so that they can end a chain of &&.
    bool fail(std::string text);
    bool fail_type(std::string_view expected);  // at the current path
    bool fail_missing(std::string_view member);
    bool fail_unexpected(std::string_view member);
    bool fail_width(std::string_view type);
    bool fail_enum(std::string_view value);

    const std::string* string(const Value& value);
    bool integer(const Value& value, std::int64_t& out);
    bool unsigned_integer(const Value& value, std::uint64_t& out);  // negative values wrap, as old clients expect

    void enter(std::string_view member) { path_.push_back({member, {}}); }
    void enter(std::size_t index) { path_.push_back({{}, index}); }
    void leave() { path_.pop_back(); }

private:
    struct Step {
        std::string_view member;           // any name, the empty one included
        std::optional<std::size_t> index;  // of an array element
    };
    std::string path() const;
    std::string_view name() const;

    Unexpected unexpected_;
    std::vector<Step> path_;
    std::string text_;
};

bool decode(Decoder& decoder, const Value& value, bool& out);
bool decode(Decoder& decoder, const Value& value, std::int64_t& out);
bool decode(Decoder& decoder, const Value& value, std::uint64_t& out);
bool decode(Decoder& decoder, const Value& value, std::uint32_t& out);
bool decode(Decoder& decoder, const Value& value, std::uint16_t& out);
bool decode(Decoder& decoder, const Value& value, std::uint8_t& out);
bool decode(Decoder& decoder, const Value& value, double& out);
bool decode(Decoder& decoder, const Value& value, std::string& out);
bool decode(Decoder& decoder, const Value& value, std::nullptr_t& out);
bool decode(Decoder& decoder, const Value& value, Value& out);

template <class T>
bool decode(Decoder& decoder, const Value& value, std::vector<T>& out)
{
    const Array* array = value.as_array();
    if (array == nullptr) return decoder.fail_type("array");
    out.clear();
    for (std::size_t i = 0; i < array->size(); ++i) {
        decoder.enter(i);
        if (!decode(decoder, (*array)[i], out.emplace_back())) return false;
        decoder.leave();
    }
    return true;
}

class ObjectReader {
public:
    ObjectReader(Decoder& decoder, const Value& value) : decoder_(decoder), object_(value.as_object()) {}
    ObjectReader(Decoder& decoder, const Object& object) : decoder_(decoder), object_(&object) {}

    bool begin() { return object_ != nullptr || decoder_.fail_type("object"); }

    template <class T>
    bool required(std::string_view name, T& out)
    {
        const Value* value = object_->find(name);
        known_.push_back(name);
        return value != nullptr ? member(name, *value, out) : decoder_.fail_missing(name);
    }

    template <class T>
    bool optional(std::string_view name, OptionalBox<T>& out)
    {
        const Value* value = object_->find(name);
        known_.push_back(name);
        out.reset();
        return value == nullptr || member(name, *value, out.emplace());
    }

    template <class T>
    bool optional(std::string_view name, std::optional<T>& out)
    {
        const Value* value = object_->find(name);
        known_.push_back(name);
        out.reset();
        return value == nullptr || member(name, *value, out.emplace());
    }

    bool end();  // nothing unexpected is left

private:
    template <class T>
    bool member(std::string_view name, const Value& value, T& out)
    {
        decoder_.enter(name);
        if (!decode(decoder_, value, out)) return false;
        decoder_.leave();
        return true;
    }

    Decoder& decoder_;
    const Object* object_;
    std::vector<std::string_view> known_;
};

template <class T>
bool decode_object(Decoder& decoder, const Value& value, T& out)
{
    ObjectReader reader(decoder, value);
    return reader.begin() && read_members(reader, out) && reader.end();
}

// Whole values, for callers. Errc::invalid carries the text of the interface.
template <class T>
Result<T> decode_value(const Value& value, Decoder::Unexpected unexpected = Decoder::Unexpected::refuse)
{
    Decoder decoder(unexpected);
    T out;
    if (decode(decoder, value, out)) return out;
    return make_error(Errc::invalid, decoder.text());
}

template <class Arguments>
Result<Arguments> decode_arguments(const Object& object, Decoder::Unexpected unexpected = Decoder::Unexpected::refuse)
{
    Decoder decoder(unexpected);
    ObjectReader reader(decoder, object);
    Arguments out;
    if (read_members(reader, out) && reader.end()) return out;
    return make_error(Errc::invalid, decoder.text());
}

// Index of `text` in a table of enum names, -1 if it is not there.
template <std::size_t N>
int find_name(const std::array<std::string_view, N>& names, std::string_view text)
{
    for (std::size_t i = 0; i < N; ++i)
        if (names[i] == text) return static_cast<int>(i);
    return -1;
}

}  // namespace colo::schema
