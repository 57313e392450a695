// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_shell.h"

#include "core/clock.h"
#include "core/log.h"

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
constexpr std::chrono::seconds kUndo{10};
// Of a record, behind number and UUID.
constexpr std::string_view kLive = " live\n", kCopy = " copy\n";
constexpr std::size_t kMaxRecord = 128;

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

std::optional<DomainShell::Own> DomainShell::ours() const
{
    const auto text = read_file(file("domain"), kMaxRecord);
    if (!text) return std::nullopt;
    char* end = nullptr;
    const unsigned long id = std::strtoul(text->c_str(), &end, 10);
    if (end == text->c_str() || id == 0 || id > 0x7ff0) return std::nullopt;
    const auto control = open_(static_cast<DomainId>(id));
    if (!control) return std::nullopt;
    const auto info = (*control)->info();
    if (!info || info->dying) return std::nullopt;
    const std::string domain = fmt::format("{} {}", id, uuid_text(info->uuid));
    const bool live = *text == domain + std::string(kLive);
    if (!live && *text != domain + std::string(kCopy)) return std::nullopt;
    return Own{static_cast<DomainId>(id), live};
}

Result<void> DomainShell::record(DomainId domain, bool live)
{
    const auto control = open_(domain);
    if (!control) return control.error();
    const auto info = (*control)->info();
    if (!info) return info.error();
    return write_file(file("domain"), fmt::format("{} {}{}", domain, uuid_text(info->uuid), live ? kLive : kCopy));
}

Result<void> DomainShell::record_live()
{
    auto text = read_file(file("domain"), kMaxRecord);
    if (!text) return text.error();
    if (!text->ends_with(kCopy)) return {};
    text->replace(text->size() - kCopy.size(), kCopy.size(), kLive);
    return write_file(file("domain"), *text);
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

Result<DomainId> DomainShell::make(Store& store, const std::string& name, bool live, Deadline deadline)
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
    const auto created = toolstack_.create(file("domain.cfg"), true, deadline);
    const auto made = find_domain(store, name);
    if (created && !made) return with_context("the toolstack reports success, but made no domain", made.error());
    const auto recorded = created ? record(*made, live) : with_context("make domain " + name, created.error());
    if (recorded) return *made;
    // A toolstack that fails takes back what it did, unless it was killed in the middle of it.
    if (made)
        if (auto r = destroy(*made, now() + kUndo); !r) spdlog::error("domain {}, half made, is left: {}", *made, r.error().text);
    return recorded.error();
}

Result<void> DomainShell::destroy(DomainId domain, Deadline deadline)
{
    auto done = toolstack_.destroy(domain, deadline);
    // What counts is that it is gone, whoever did it; its memory may take a moment to be given back.
    for (;;) {
        const auto control = open_(domain);
        if (!control && control.error().code == Errc::guest_died) break;
        const auto info = control ? (*control)->info() : Result<DomainInfo>(control.error());
        if (!done && !(info && info->dying)) return done;
        if (now() >= deadline) return make_error(Errc::timed_out, fmt::format("domain {} is still there after it was destroyed", domain));
        std::this_thread::sleep_for(kLookAgain);
    }
    (void)::unlink(file("domain").c_str());
    return {};
}

}  // namespace colo::xen
