// SPDX-License-Identifier: Apache-2.0
#pragma once

// Internal to colo/config*.cpp: the visitor that fills a Config from a parsed file and overrides. It hides the TOML
// library: toml::table appears only in config_reader.cpp.

#include "colo/config_fields.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace colo::config {

class Reader {
public:
    Reader(std::string file, const std::vector<std::string>& overrides, std::vector<ConfigProblem>& problems);
    ~Reader();

    // False: not TOML; the one syntax error is reported.
    bool parse(std::string_view toml);

    void section(std::string_view name, std::string_view meaning);
    void text(const TextSpec& spec, std::string& value);
    template <class T>
    void number(const NumberSpec& spec, T& value)
    {
        std::uint64_t wide = value;
        if (read_number(spec, wide)) value = static_cast<T>(wide);
    }
    template <class E, std::size_t N>
    void choice(const ChoiceSpec& spec, E& value, std::span<const Name<E>, N> names)
    {
        std::vector<std::string> allowed;
        for (const Name<E>& name : names) allowed.emplace_back(name.text);
        const int index = read_choice(spec, allowed);
        if (index >= 0) value = names[static_cast<std::size_t>(index)].value;
    }
    template <class T, class Each>
    void array(const ArraySpec& spec, std::vector<T>& items, Each each)
    {
        const std::size_t count = begin_array(spec);
        for (std::size_t i = 0; i < count; ++i) {
            enter_element(spec, i);
            each(*this, items.emplace_back());
        }
        end_array();
    }

    // After the visit: unknown keys, sections and overrides; disks.
    void finish();

    // A problem at the place where `key` ("heartbeat.lease_ms") was set, or at its section if it was not.
    void complain(const std::string& key, std::string reason);

private:
    struct Document;
    struct Override {
        std::string key, value, argument;
        bool used = false;
    };
    struct Place {
        std::string source;
        std::uint32_t line = 0, column = 0;
    };

    std::string full_key(std::string_view key);
    Override* find_override(const std::string& key);
    bool read_number(const NumberSpec& spec, std::uint64_t& value);
    int read_choice(const ChoiceSpec& spec, const std::vector<std::string>& allowed);
    // Text of the setting from the override or the file; false if it is not set or of the wrong type (reported).
    bool find_text(const std::string& key, std::string_view short_key, std::string& value);
    std::size_t begin_array(const ArraySpec& spec);
    void enter_element(const ArraySpec& spec, std::size_t index);
    void end_array();

    std::string file_;
    std::vector<Override> overrides_;
    std::vector<ConfigProblem>& problems_;
    std::unique_ptr<Document> document_;
    std::string section_, prefix_;
    std::map<std::string, Place> places_;                    // of keys and sections
    std::map<std::string, std::vector<std::string>> known_;  // section ("" = top, "nic", "heartbeat.path") -> keys
};

}  // namespace colo::config
