// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_shell.h"

#include "core/clock.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <unistd.h>

namespace colo::xen {
namespace {

constexpr std::chrono::milliseconds kLookAgain{10};

std::string uuid_text(const std::array<std::uint8_t, 16>& uuid)
{
    std::string out;
    for (const std::uint8_t byte : uuid) out += fmt::format("{:02x}", byte);
    return out;
}

Result<std::string> read_file(const std::string& path, std::size_t most)
{
    std::ifstream in(path, std::ios::binary);
    if (!in) return errno_error(path, errno);
    std::string text(most + 1, '\0');
    in.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(in.gcount()));
    if (text.size() > most) return make_error(Errc::limit, fmt::format("{}: longer than {} bytes", path, most));
    return text;
}

// Whole or not at all.
Result<void> write_file(const std::string& path, const std::string& text)
{
    const std::string part = path + ".new";
    {
        std::ofstream out(part, std::ios::binary | std::ios::trunc);
        out << text;
        out.flush();
        if (!out) return errno_error("write " + part, errno);
    }
    if (std::rename(part.c_str(), path.c_str()) != 0) return errno_error("write " + path, errno);
    return {};
}

}  // namespace

std::string control_socket(const HvmGuestOptions& options) { return options.run_directory + "/model.sock"; }
std::string probe_socket(const HvmGuestOptions& options) { return options.run_directory + "/probe.sock"; }

std::optional<DomainId> DomainShell::ours() const
{
    constexpr std::size_t kMost = 128;
    const auto text = read_file(file("domain"), kMost);
    if (!text) return std::nullopt;
    char* end = nullptr;
    const unsigned long id = std::strtoul(text->c_str(), &end, 10);
    if (end == text->c_str() || id == 0 || id > 0x7ff0) return std::nullopt;
    const auto control = open_(static_cast<DomainId>(id));
    if (!control) return std::nullopt;
    const auto info = (*control)->info();
    if (!info || info->dying || fmt::format("{} {}\n", id, uuid_text(info->uuid)) != *text) return std::nullopt;
    return static_cast<DomainId>(id);
}

Result<void> DomainShell::record(DomainId domain)
{
    const auto control = open_(domain);
    if (!control) return control.error();
    const auto info = (*control)->info();
    if (!info) return info.error();
    return write_file(file("domain"), fmt::format("{} {}\n", domain, uuid_text(info->uuid)));
}

Result<std::string> DomainShell::operators_config() const
{
    auto text = read_file(options_.config_file, kMaxDomainConfig);
    if (!text) return with_context("[guest] xl_config", text.error());
    return text;
}

Result<std::string> DomainShell::comparable() const
{
    auto text = operators_config();
    if (!text) return text.error();
    return comparable_config(*text);
}

Result<DomainId> DomainShell::make(Store& store, const std::string& name, Deadline deadline)
{
    const auto operators = operators_config();
    if (!operators) return operators.error();
    const auto config = domain_config(*operators, {name, control_socket(options_), probe_socket(options_), options_.nics});
    if (!config) return with_context(options_.config_file, config.error());
    if (auto r = write_file(file("domain.cfg"), *config); !r) return r.error();
    if (const auto there = find_domain(store, name))
        return make_error(Errc::refused, fmt::format("there is a domain {} already (number {}), which this service did not make. If nobody "
                                                     "needs it, destroy it: xl destroy {}",
                                                     name, *there, *there));
    if (auto r = toolstack_.create(file("domain.cfg"), true, deadline); !r) return with_context("make domain " + name, r.error());
    const auto made = find_domain(store, name);
    if (!made) return with_context("the toolstack reports success, but made no domain", made.error());
    if (auto r = record(*made); !r) return r.error();
    return *made;
}

Result<void> DomainShell::destroy(DomainId domain, Deadline deadline)
{
    auto done = toolstack_.destroy(domain, deadline);
    // What counts is that it is gone, whoever did it; its memory may take a moment to be given back.
    for (;;) {
        const auto control = open_(domain);
        if (!control && control.error().code == Errc::guest_died) break;
        if (!done) return done;
        if (now() >= deadline) return make_error(Errc::timed_out, fmt::format("domain {} is still there after it was destroyed", domain));
        std::this_thread::sleep_for(kLookAgain);
    }
    (void)::unlink(file("domain").c_str());
    return {};
}

}  // namespace colo::xen
