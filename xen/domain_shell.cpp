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
constexpr std::size_t kMaxRecord = 4096;
// A command that was killed may be inside of the hypervisor, making the domain, and dies behind that.
constexpr std::chrono::milliseconds kLateCommand{300};

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

Result<std::optional<DomainShell::Own>> DomainShell::ours(Store& store) const
{
    const auto text = read_file(file("domain"), kMaxRecord);
    const auto record = text ? parse_record(*text) : std::nullopt;
    if (!record) return std::optional<Own>();
    const auto boot = host_boot();
    if (!boot) return boot.error();
    if (record->boot != *boot) return std::optional<Own>();   // whatever is called like it now is somebody else's
    if (record->state == DomainRecord::State::making) return half_made(store, *record);
    const auto control = open_(record->domain);
    if (!control && control.error().code != Errc::guest_died) return control.error();
    if (!control) return std::optional<Own>();
    const auto info = (*control)->info();
    if (!info && info.error().code != Errc::guest_died) return info.error();
    if (!info || info->uuid != record->uuid) return std::optional<Own>();
    return std::optional(Own{record->domain, record->state == DomainRecord::State::live, true, info->dying});
}

Result<std::optional<DomainShell::Own>> DomainShell::half_made(Store& store, const DomainRecord& record) const
{
    for (const Deadline end = now() + kLateCommand;;) {
        // It never ran: one of the operator's own with the same UUID did.
        const auto found = find_made(store, record, true);
        if (!found) return found.error();
        if (*found) return std::optional(Own{**found, false, false, false});
        if (now() >= end) return std::optional<Own>();
        std::this_thread::sleep_for(kLookAgain);
    }
}

// The hypervisor knows the UUID from the first moment on, xenstore the name a little later.
Result<std::optional<DomainId>> DomainShell::find_made(Store& store, const DomainRecord& record, bool never_ran) const
{
    const auto all = list_();
    if (!all) return with_context("look for the domain that was being made", all.error());
    for (const ListedDomain& one : *all) {
        if (one.info.uuid != record.uuid || one.info.dying || (never_ran && one.info.cpu_time_ns != 0)) continue;
        const auto name = store.read(fmt::format("/local/domain/{}/name", one.domain));
        if (!name) return name.error();
        if (name->value_or("").empty() || **name == record.name) return std::optional(one.domain);
    }
    return std::optional<DomainId>();
}

Result<void> DomainShell::record(const DomainRecord& record) { return write_file(file("domain"), record_text(record)); }

Result<void> DomainShell::record_live()
{
    const auto text = read_file(file("domain"), kMaxRecord);
    if (!text) return text.error();
    auto known = parse_record(*text);
    if (!known || known->state != DomainRecord::State::copy) return {};
    known->state = DomainRecord::State::live;
    return record(*known);
}

Result<void> DomainShell::configure()
{
    if (configured_) return {};
    auto text = read_file(options_.config_file, kMaxDomainConfig);
    if (!text) return with_context("[guest] xl_config", text.error());
    if (const auto r = domain_config(*text, {options_.name, control_socket(options_), probe_socket(options_), {}, options_.nics}); !r)
        return with_context(options_.config_file, r.error());
    operators_ = std::move(*text);
    configured_ = true;
    return {};
}

// The guest sees it, so one that the operator chose stays.
Result<Uuid> DomainShell::next_uuid() const
{
    const auto operators = config_uuid(operators_);
    if (!operators) return with_context(options_.config_file, operators.error());
    return *operators ? Result<Uuid>(**operators) : new_uuid();
}

Result<DomainId> DomainShell::make(Store& store, const std::string& name, bool live, Deadline deadline)
{
    const auto uuid = next_uuid();
    if (!uuid) return uuid.error();
    const auto config = domain_config(operators_, {name, control_socket(options_), probe_socket(options_), uuid_text(*uuid), options_.nics});
    if (!config) return with_context(options_.config_file, config.error());
    if (auto r = write_file(file("domain.cfg"), *config); !r) return r.error();
    const auto there = named_domain(store, name);
    if (!there) return there.error();
    if (*there)
        return make_error(Errc::refused, fmt::format("there is a domain {} already (number {}), which this service did not make. If nobody "
                                                     "needs it, destroy it: xl destroy {}",
                                                     name, **there, **there));
    const auto boot = host_boot();
    if (!boot) return boot.error();
    const DomainRecord making{DomainRecord::State::making, 0, *uuid, name, *boot};
    if (auto r = record(making); !r) return r.error();
    const auto made = run_toolstack(store, making, deadline);
    if (!made) return made;
    auto recorded = record({live ? DomainRecord::State::live : DomainRecord::State::copy, *made, *uuid, {}, *boot});
    if (recorded) return made;
    if (auto r = destroy(*made, now() + kUndo); !r) spdlog::error("domain {}, half made, is left: {}", *made, r.error().text);
    return recorded.error();
}

// A toolstack that fails takes back what it did, unless it was killed in the middle of it. What cannot be taken back now stays
// in the record.
Result<DomainId> DomainShell::run_toolstack(Store& store, const DomainRecord& making, Deadline deadline)
{
    const auto created = toolstack_.create(file("domain.cfg"), true, deadline);
    const auto made = find_made(store, making, false);
    if (created && made && *made) return **made;
    const Error failed = !created ? with_context("make domain " + making.name, created.error())
                         : !made  ? made.error()
                                  : make_error(Errc::failed, fmt::format("the toolstack reports success, but made no domain {} with the UUID {}; does "
                                                                         "its command ([guest] xl_create) use {{config}}?",
                                                                         making.name, uuid_text(making.uuid)));
    if (made && !*made) {
        // What another configuration made has the name, which was nobody's before.
        const auto named = created ? named_domain(store, making.name) : Result<std::optional<DomainId>>(std::optional<DomainId>());
        if (!named || (*named && !destroy(**named, now() + kUndo))) return failed;
        (void)::unlink(file("domain").c_str());
        return failed;
    }
    if (made)
        if (auto r = destroy(**made, now() + kUndo); !r) spdlog::error("domain {}, half made, is left: {}", **made, r.error().text);
    return failed;
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
        if (now() >= deadline && info && info->dying)
            return make_error(Errc::timed_out, fmt::format("domain {} is destroyed, but not gone: somebody still maps its memory ({} pages). Another "
                                                           "program that works on it (xl save, xl migrate, its device model) has to end",
                                                           domain, info->total_pages));
        if (now() >= deadline) return make_error(Errc::timed_out, fmt::format("domain {} is still there after it was destroyed", domain));
        std::this_thread::sleep_for(kLookAgain);
    }
    (void)::unlink(file("domain").c_str());
    return {};
}

}  // namespace colo::xen
