// SPDX-License-Identifier: Apache-2.0
#include "schema/value.h"

#include <algorithm>
#include <limits>

namespace colo::schema {

Object::Object() = default;
Object::Object(std::initializer_list<Member> members) : members_(members) {}
Object::Object(const Object&) = default;
Object::Object(Object&&) noexcept = default;
Object& Object::operator=(const Object&) = default;
Object& Object::operator=(Object&&) noexcept = default;
Object::~Object() = default;

const Value* Object::find(std::string_view name) const
{
    for (const Member& member : members_)
        if (member.name == name) return &member.value;
    return nullptr;
}

Value* Object::find(std::string_view name)
{
    for (Member& member : members_)
        if (member.name == name) return &member.value;
    return nullptr;
}

void Object::set(std::string_view name, Value value)
{
    if (Value* old = find(name))
        *old = std::move(value);
    else
        append(std::string(name), std::move(value));
}

Value& Object::append(std::string name, Value value)
{
    members_.push_back({std::move(name), std::move(value)});
    return members_.back().value;
}

void Object::reserve(std::size_t members)
{
    members_.reserve(members);
}

bool Object::erase(std::string_view name)
{
    return std::erase_if(members_, [&](const Member& member) { return member.name == name; }) > 0;
}

bool Object::operator==(const Object& other) const
{
    if (size() != other.size()) return false;
    return std::ranges::all_of(members_, [&](const Member& member) {
        const Value* value = other.find(member.name);
        return value != nullptr && *value == member.value;
    });
}

Value::Value(std::uint64_t value)
{
    if (value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        data_ = static_cast<std::int64_t>(value);
    else
        data_ = value;
}

const Value* Value::find(std::string_view name) const
{
    const Object* object = as_object();
    return object != nullptr ? object->find(name) : nullptr;
}

bool Value::operator==(const Value& other) const
{
    return data_ == other.data_;
}

}  // namespace colo::schema
