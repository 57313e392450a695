// SPDX-License-Identifier: Apache-2.0
#include "colo/config_reader.h"

#include "colo/config_text.h"

// toml++ 3.3 asserts a precondition that "[[[" in a file breaks, and reports the error properly right after it.
#define TOML_ASSERT(expr) static_assert(true)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>

namespace colo::config {
namespace {

std::string_view type_name(const toml::node& node)
{
    if (node.is_string()) return "text";
    if (node.is_integer()) return "a number";
    if (node.is_floating_point()) return "a fraction";
    if (node.is_boolean()) return "true or false";
    if (node.is_array()) return "an array";
    if (node.is_table()) return "a section";
    return "a date or time";
}

std::string parent_of(const std::string& key)
{
    const std::size_t dot = key.rfind('.');
    return dot == std::string::npos ? std::string{} : key.substr(0, dot);
}

std::string join(const std::vector<std::string>& words)
{
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

bool parse_unsigned(std::string_view text, std::uint64_t& value)
{
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    return status == std::errc{} && end == text.data() + text.size() && !text.empty();
}

}  // namespace

struct Reader::Document {
    toml::table root;
    const toml::table* current = nullptr;  // section or array element being read; null if the file has none
    const toml::table* section = nullptr;
    const toml::array* array = nullptr;

    const toml::node* find(std::string_view key) const { return current != nullptr ? current->get(key) : nullptr; }
};

Reader::Reader(std::string file, const std::vector<std::string>& overrides, std::vector<ConfigProblem>& problems)
    : file_(std::move(file)), problems_(problems), document_(std::make_unique<Document>())
{
    for (const std::string& argument : overrides) {
        const std::size_t equals = argument.find('=');
        if (equals == std::string::npos || equals == 0) {
            problems_.push_back({"--set " + argument, 0, 0, "is not of the form section.key=value"});
            continue;
        }
        const std::string key = argument.substr(0, equals);
        // The last one wins, as with any command line; earlier ones count as used.
        for (Override& earlier : overrides_)
            if (earlier.key == key) earlier.used = true, earlier.key.clear();
        overrides_.push_back({key, argument.substr(equals + 1), "--set " + argument});
    }
}

Reader::~Reader() = default;

bool Reader::parse(std::string_view toml)
{
    toml::parse_result result = toml::parse(toml, std::string_view(file_));
    if (!result) {
        const toml::parse_error& error = result.error();
        problems_.push_back(
            {file_, error.source().begin.line, error.source().begin.column, std::string(error.description())});
        return false;
    }
    document_->root = std::move(result).table();
    return true;
}

void Reader::section(std::string_view name, std::string_view)
{
    section_ = prefix_ = name;
    known_[""].emplace_back(name);
    known_[section_];
    document_->current = document_->section = nullptr;
    const toml::node* const node = document_->root.get(name);
    if (node == nullptr) return;
    places_[section_] = {file_, node->source().begin.line, node->source().begin.column};
    if (node->is_table())
        document_->current = document_->section = node->as_table();
    else
        complain(section_, section_ + " must be a section, [" + section_ + "], not " + std::string(type_name(*node)));
}

std::string Reader::full_key(std::string_view key)
{
    std::vector<std::string>& known = known_[section_];
    if (std::find(known.begin(), known.end(), key) == known.end()) known.emplace_back(key);
    std::string full = prefix_ + "." + std::string(key);
    if (const toml::node* const node = document_->find(key))
        places_[full] = {file_, node->source().begin.line, node->source().begin.column};
    return full;
}

Reader::Override* Reader::find_override(const std::string& key)
{
    for (Override& each : overrides_)
        if (each.key == key) {
            each.used = true;
            places_[key] = {each.argument, 0, 0};
            return &each;
        }
    return nullptr;
}

bool Reader::find_text(const std::string& key, std::string_view short_key, std::string& value)
{
    if (const Override* const override_value = find_override(key)) {
        value = override_value->value;
        return true;
    }
    const toml::node* const node = document_->find(short_key);
    if (node == nullptr) return false;
    if (!node->is_string()) {
        complain(key, key + " must be text in quotation marks, not " + std::string(type_name(*node)));
        return false;
    }
    value = node->as_string()->get();
    return true;
}

void Reader::text(const TextSpec& spec, std::string& value)
{
    const std::string key = full_key(spec.key);
    std::string found = value;
    const std::size_t before = problems_.size();
    const bool set = find_text(key, spec.key, found);
    if (problems_.size() != before) return;
    if (spec.required && found.empty()) {
        complain(key, set ? key + " must not be empty" : key + " is missing");
        return;
    }
    if (const std::string wrong = check_text(spec.kind, found); !wrong.empty())
        complain(key, key + " = \"" + found.substr(0, 100) + "\": " + wrong);
    else
        value = found;
}

bool Reader::read_number(const NumberSpec& spec, std::uint64_t& value)
{
    const std::string key = full_key(spec.key);
    const std::string bounds = "from " + std::to_string(spec.min) + " to " + std::to_string(spec.max);
    std::uint64_t found = 0;
    if (const Override* const override_value = find_override(key)) {
        if (!parse_unsigned(override_value->value, found)) {
            complain(key, key + " must be a whole number " + bounds);
            return false;
        }
    } else {
        const toml::node* const node = document_->find(spec.key);
        if (node == nullptr) return false;
        if (!node->is_integer()) {
            complain(key, key + " must be a whole number, not " + std::string(type_name(*node)));
            return false;
        }
        const std::int64_t number = node->as_integer()->get();
        if (number < 0) {
            complain(key, key + " = " + std::to_string(number) + " must be " + bounds);
            return false;
        }
        found = static_cast<std::uint64_t>(number);
    }
    if (found < spec.min || found > spec.max) {
        complain(key, key + " = " + std::to_string(found) + " must be " + bounds);
        return false;
    }
    value = found;
    return true;
}

int Reader::read_choice(const ChoiceSpec& spec, const std::vector<std::string>& allowed)
{
    const std::string key = full_key(spec.key);
    std::string found;
    const std::size_t before = problems_.size();
    if (!find_text(key, spec.key, found)) {
        if (spec.required && problems_.size() == before)
            complain(key, key + " is missing and has no default; choose one of " + join(allowed));
        return -1;
    }
    const auto position = std::find(allowed.begin(), allowed.end(), found);
    if (position != allowed.end()) return static_cast<int>(position - allowed.begin());
    std::string reason = key + " = \"" + found.substr(0, 100) + "\" is not one of " + join(allowed);
    if (key == "arbiter.kind" && found == "pacemaker")
        reason = "arbiter.kind = \"pacemaker\": this version cannot let a cluster decide yet; choose one of " +
                 join(allowed);
    else if (const std::string_view near = closest(found, allowed); !near.empty())
        reason += "; did you mean \"" + std::string(near) + "\"?";
    complain(key, std::move(reason));
    return -1;
}

std::size_t Reader::begin_array(const ArraySpec& spec)
{
    // "nic" stands at the top, "heartbeat.path" inside the section that was read last.
    const std::string key(spec.key);
    const std::size_t dot = key.find('.');
    const std::string short_key = dot == std::string::npos ? key : key.substr(dot + 1);
    known_[dot == std::string::npos ? "" : section_].push_back(short_key);
    const toml::table* const holder = dot == std::string::npos ? &document_->root : document_->section;
    const toml::node* const node = holder != nullptr ? holder->get(short_key) : nullptr;

    std::size_t count = 0;
    document_->array = nullptr;
    if (node != nullptr) {
        places_[key] = {file_, node->source().begin.line, node->source().begin.column};
        if (node->is_array() && std::all_of(node->as_array()->begin(), node->as_array()->end(),
                                            [](const toml::node& each) { return each.is_table(); })) {
            document_->array = node->as_array();
            count = document_->array->size();
        } else {
            complain(key, key + " must be written as one or more sections, [[" + key + "]]");
            return 0;
        }
    }
    for (const Override& each : overrides_) {  // an override may add the next element
        const std::string next = key + "." + std::to_string(count) + ".";
        if (each.key.starts_with(next)) ++count;
    }
    if (count < spec.min)
        complain(key, "[[" + key + "]] is missing; at least " + std::to_string(spec.min) + " is needed");
    if (count > spec.max) {
        complain(key, "there are " + std::to_string(count) + " [[" + key + "]] sections; at most " +
                          std::to_string(spec.max) + " are possible");
        count = spec.max;
    }
    return count;
}

void Reader::enter_element(const ArraySpec& spec, std::size_t index)
{
    section_ = spec.key;
    prefix_ = section_ + "." + std::to_string(index);
    document_->current = nullptr;
    if (document_->array == nullptr || index >= document_->array->size()) return;
    document_->current = document_->array->get(index)->as_table();
    const toml::source_position at = document_->current->source().begin;
    places_[prefix_] = {file_, at.line, at.column};
}

void Reader::end_array()
{
    // What follows belongs to a new section(); an array is the last thing of its section.
    document_->current = nullptr;
}

void Reader::finish()
{
    if (const toml::node* const disk = document_->root.get("disk")) {
        places_["disk"] = {file_, disk->source().begin.line, disk->source().begin.column};
        complain("disk", "[[disk]]: " + std::string(kDisksComeLater));
        known_[""].emplace_back("disk");
    }
    const auto check_keys = [this](const toml::table& table, const std::string& section) {
        const std::vector<std::string>& known = known_[section];
        for (const auto& [key, node] : table) {
            const std::string name(key.str());
            if (std::find(known.begin(), known.end(), name) != known.end()) continue;
            std::string reason = section.empty() ? (node.is_value() ? "unknown setting " : "unknown section ") + name
                                                 : "unknown setting " + section + "." + name;
            if (const std::string_view near = closest(name, known); !near.empty())
                reason += "; did you mean " + std::string(near) + "?";
            problems_.push_back({file_, key.source().begin.line, key.source().begin.column, std::move(reason)});
        }
    };
    check_keys(document_->root, "");
    for (const auto& [section, keys] : known_) {
        if (section.empty()) continue;
        const toml::node_view<toml::node> node = document_->root.at_path(section);
        if (const toml::table* const table = node.as_table()) check_keys(*table, section);
        if (const toml::array* const array = node.as_array())
            for (const toml::node& each : *array)
                if (each.is_table()) check_keys(*each.as_table(), section);
    }
    for (const Override& each : overrides_)
        if (!each.used) problems_.push_back({each.argument, 0, 0, "unknown setting " + each.key});
}

void Reader::complain(const std::string& key, std::string reason)
{
    for (std::string at = key; !at.empty(); at = parent_of(at))
        if (const auto place = places_.find(at); place != places_.end()) {
            problems_.push_back({place->second.source, place->second.line, place->second.column, std::move(reason)});
            return;
        }
    problems_.push_back({file_, 0, 0, std::move(reason)});
}

}  // namespace colo::config
