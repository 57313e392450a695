// SPDX-License-Identifier: Apache-2.0
// Two visitors over config_fields.h: the effective configuration as TOML, and the reference as Markdown.
#include "colo/config.h"
#include "colo/config_fields.h"
#include "colo/config_text.h"

#include <fmt/format.h>

namespace colo {
namespace {

using namespace config;

std::string toml_string(std::string_view text)
{
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            out += '\\', out += c;
        else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            out += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        else
            out += c;
    }
    return out + "\"";
}

template <class E, std::size_t N>
std::string_view name_of_value(E value, std::span<const Name<E>, N> names)
{
    for (const Name<E>& name : names)
        if (name.value == value) return name.text;
    return "";
}

struct Printer {
    std::string out;

    void section(std::string_view name, std::string_view)
    {
        out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", name);
    }
    void text(const TextSpec& spec, const std::string& value)
    {
        // An empty optional setting is an absent one.
        if (!value.empty() || spec.required) out += fmt::format("{} = {}\n", spec.key, toml_string(value));
    }
    template <class T>
    void number(const NumberSpec& spec, const T& value)
    {
        out += fmt::format("{} = {}\n", spec.key, value);
    }
    template <class E, std::size_t N>
    void choice(const ChoiceSpec& spec, const E& value, std::span<const Name<E>, N> names)
    {
        out += fmt::format("{} = {}\n", spec.key, toml_string(name_of_value(value, names)));
    }
    template <class T, class Each>
    void array(const ArraySpec& spec, const std::vector<T>& items, Each each)
    {
        for (const T& item : items) {
            out += fmt::format("\n[[{}]]\n", spec.key);
            each(*this, item);
        }
    }
};

struct Reference {
    std::string out;

    void heading(const std::string& name, std::string_view meaning)
    {
        out += fmt::format("\n## {}\n\n", name);
        if (!meaning.empty()) out += fmt::format("{}\n\n", meaning);
        out += "| key | value | default | meaning |\n|---|---|---|---|\n";
    }
    void row(std::string_view key, const std::string& value, const std::string& preset, std::string_view meaning)
    {
        std::string escaped;
        for (const char c : meaning) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
        out += fmt::format("| `{}` | {} | {} | {} |\n", key, value, preset, escaped);
    }
    void section(std::string_view name, std::string_view meaning) { heading("[" + std::string(name) + "]", meaning); }
    void text(const TextSpec& spec, const std::string& value)
    {
        const std::string preset = !value.empty() ? "`" + value + "`" : spec.required ? "**required**" : "empty";
        row(spec.key, std::string(describe(spec.kind)), preset, spec.meaning);
    }
    template <class T>
    void number(const NumberSpec& spec, const T& value)
    {
        row(spec.key, fmt::format("{} to {}", spec.min, spec.max), std::to_string(value), spec.meaning);
    }
    template <class E, std::size_t N>
    void choice(const ChoiceSpec& spec, const E& value, std::span<const Name<E>, N> names)
    {
        std::string all;
        for (const Name<E>& name : names) all += fmt::format("{}`{}`", all.empty() ? "" : ", ", name.text);
        row(spec.key, all, spec.required ? "**required**" : fmt::format("`{}`", name_of_value(value, names)),
            spec.meaning);
    }
    template <class T, class Each>
    void array(const ArraySpec& spec, const std::vector<T>&, Each each)
    {
        heading("[[" + std::string(spec.key) + "]]",
                fmt::format("{} ({} to {} of them.)", spec.meaning, spec.min, spec.max));
        const T presets{};
        each(*this, presets);
    }
};

constexpr std::string_view kIntroduction = R"(<!-- SPDX-License-Identifier: Apache-2.0 -->
# Configuration of a domain

One TOML file per domain and host, by custom `/etc/colo/NAME.toml`; `docs/example-domain.toml` is one to start from.
`colod --check-config FILE` reads it, reports everything that is wrong with file, line, column and reason, and touches
nothing. Unknown keys, wrong types and settings that contradict each other are refused; nothing is guessed.

`--set section.key=value` on the command line goes on top of the file, under the same checks; elements of repeated
sections by their number: `--set nic.0.wire=tap:vm1`, `--set heartbeat.path.0.peer=192.0.2.2:7000`. Values are written
without quotation marks. Key names carry their unit: `_ms` milliseconds, `_mib` MiB.

A section `[[disk]]` is refused: disks come later, this version replicates memory, CPU and devices only.

This page is generated from the program; a test compares the two.
)";

}  // namespace

std::string to_toml(const Config& config)
{
    Printer printer;
    visit_config(printer, config);
    return std::move(printer.out);
}

std::string config_reference()
{
    Reference reference;
    reference.out = kIntroduction;
    const Config presets;
    visit_config(reference, presets);
    return std::move(reference.out);
}

}  // namespace colo
