// SPDX-License-Identifier: Apache-2.0
#pragma once

// A JSON value that keeps signed, unsigned and floating numbers apart. Integers in int64 range are always `int64`;
// only larger ones are `uint64`, so equal integers compare equal. Strings are UTF-8 and may hold U+0000.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace colo::schema {

class Value;
using Array = std::vector<Value>;
struct Member;

// Members in the order in which they came. The parser refuses repeated names; set() replaces.
class Object {
public:
    Object();
    Object(std::initializer_list<Member> members);
    Object(const Object&);
    Object(Object&&) noexcept;
    Object& operator=(const Object&);
    Object& operator=(Object&&) noexcept;
    ~Object();

    const Value* find(std::string_view name) const;  // nullptr if absent
    Value* find(std::string_view name);
    bool contains(std::string_view name) const { return find(name) != nullptr; }
    void set(std::string_view name, Value value);  // replaces or appends
    Value& append(std::string name, Value value);  // the caller knows that the name is new
    void reserve(std::size_t members);
    bool erase(std::string_view name);

    bool empty() const;
    std::size_t size() const;
    const std::vector<Member>& members() const { return members_; }

    bool operator==(const Object&) const;  // order does not matter

private:
    std::vector<Member> members_;
};

class Value {
public:
    enum class Type : std::uint8_t { null, boolean, int64, uint64, real, string, array, object };

    Value() = default;
    Value(std::nullptr_t) {}                                      // NOLINT(google-explicit-constructor): a value type
    Value(bool value) : data_(value) {}                           // NOLINT
    Value(int value) : data_(std::int64_t{value}) {}              // NOLINT
    Value(unsigned value) : data_(std::int64_t{value}) {}         // NOLINT
    Value(std::int64_t value) : data_(value) {}                   // NOLINT
    Value(std::uint64_t value);                                   // NOLINT
    Value(double value) : data_(value) {}                         // NOLINT
    Value(const char* value) : data_(std::string(value)) {}       // NOLINT
    Value(std::string_view value) : data_(std::string(value)) {}  // NOLINT
    Value(std::string value) : data_(std::move(value)) {}         // NOLINT
    Value(Array value) : data_(std::move(value)) {}               // NOLINT
    Value(Object value) : data_(std::move(value)) {}              // NOLINT

    Type type() const { return static_cast<Type>(data_.index()); }
    bool is_null() const { return type() == Type::null; }
    bool is_integer() const { return type() == Type::int64 || type() == Type::uint64; }

    // nullptr if the value has another type.
    const bool* as_bool() const { return std::get_if<bool>(&data_); }
    const std::int64_t* as_int64() const { return std::get_if<std::int64_t>(&data_); }
    const std::uint64_t* as_uint64() const { return std::get_if<std::uint64_t>(&data_); }
    const double* as_double() const { return std::get_if<double>(&data_); }
    const std::string* as_string() const { return std::get_if<std::string>(&data_); }
    const Array* as_array() const { return std::get_if<Array>(&data_); }
    Array* as_array() { return std::get_if<Array>(&data_); }
    const Object* as_object() const { return std::get_if<Object>(&data_); }
    Object* as_object() { return std::get_if<Object>(&data_); }

    // Member of an object; nullptr if this is no object or has no such member.
    const Value* find(std::string_view name) const;

    bool operator==(const Value&) const;

private:
    std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Array, Object> data_;
};

struct Member {
    std::string name;
    Value value;
    bool operator==(const Member&) const = default;
};

inline bool Object::empty() const
{
    return members_.empty();
}
inline std::size_t Object::size() const
{
    return members_.size();
}

// An optional member of the type that it belongs to. Copies are deep.
template <class T>
class OptionalBox {
public:
    OptionalBox() = default;
    OptionalBox(T value) : value_(std::make_unique<T>(std::move(value))) {}
    OptionalBox(const OptionalBox& other) : value_(other.value_ ? std::make_unique<T>(*other.value_) : nullptr) {}
    OptionalBox(OptionalBox&&) noexcept = default;
    OptionalBox& operator=(OptionalBox other) noexcept
    {
        value_ = std::move(other.value_);
        return *this;
    }
    ~OptionalBox() = default;

    bool has_value() const { return value_ != nullptr; }
    explicit operator bool() const { return has_value(); }
    T& operator*() { return *value_; }
    const T& operator*() const { return *value_; }
    T* operator->() { return value_.get(); }
    const T* operator->() const { return value_.get(); }
    T& emplace() { return *(value_ = std::make_unique<T>()); }
    void reset() { value_.reset(); }
    bool operator==(const OptionalBox& other) const
    {
        return has_value() == other.has_value() && (!has_value() || *value_ == *other.value_);
    }

private:
    std::unique_ptr<T> value_;
};

}  // namespace colo::schema
