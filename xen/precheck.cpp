// SPDX-License-Identifier: Apache-2.0
#include "xen/precheck.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <unistd.h>

namespace colo::xen {
namespace {

// Of what a guest may have written.
constexpr std::size_t kShownLength = 64;
// The type says no already; one reason is enough.
constexpr const char* kHvmOnly = "a question about HVM domains only";

// xenbus states: a frontend that got beyond "initialising" has a driver in the guest.
bool has_driver(const std::string& state) { return state == "3" || state == "4" || state == "5"; }

std::string shown(const std::string& text)
{
    std::string out;
    for (const char c : text.substr(0, kShownLength)) out += c >= ' ' && c <= '~' ? c : '?';
    return out;
}

class Precheck {
public:
    Precheck(Control& control, Store& store, const std::function<bool(const std::string&)>& exists)
        : control_(control), store_(store), exists_(exists), id_(std::to_string(control.domain()))
    {
    }

    std::vector<Finding> run()
    {
        ask("state", &Precheck::state);
        ask("type", &Precheck::type);
        ask("paging", &Precheck::paging);
        ask("drivers", &Precheck::drivers);
        ask("passthrough", &Precheck::passthrough);
        ask("vnuma", &Precheck::vnuma);
        ask("memory", &Precheck::memory);
        ask("device-model", &Precheck::device_model);
        ask("tsc", &Precheck::tsc);
        return std::move(findings_);
    }

private:
    using Answer = Result<std::string>;   // what was found, or Errc::unsupported with why and what to do

    void ask(const char* check, Answer (Precheck::*question)())
    {
        auto answer = (this->*question)();
        findings_.push_back({check, answer.has_value(), answer ? *answer : answer.error().text});
    }
    static Error no(std::string text) { return make_error(Errc::unsupported, std::move(text)); }
    Result<std::string> read(const std::string& path)
    {
        auto value = store_.read(path);
        if (!value) return value.error();
        return shown(value->value_or(""));
    }

    Answer state();
    Answer type();
    Answer paging();
    Answer drivers();
    Result<std::string> connected_frontend();
    Answer passthrough();
    Answer vnuma();
    Answer memory();
    Answer device_model();
    Answer tsc();

    Control& control_;
    Store& store_;
    const std::function<bool(const std::string&)>& exists_;
    std::string id_;
    std::vector<Finding> findings_;
};

Precheck::Answer Precheck::state()
{
    auto info = control_.info();
    if (!info) return info.error();
    if (info->dying) return no("the domain is being destroyed");
    if (info->suspended()) return no("another tool has it suspended (xl save, xl migrate?); try again when that has ended");
    if (info->shut_down)
        return no(fmt::format("the domain is shut down (reason {}); start it again first", info->shutdown_reason));
    return fmt::format("exists, {}, {} vCPUs", info->paused ? "paused" : "not paused", info->vcpus);
}

Precheck::Answer Precheck::type()
{
    auto info = control_.info();
    if (!info) return info.error();
    if (!info->hvm)
        return no("a PV domain: its page tables contain frame numbers of this host, and Xen has no dirty log for it here. "
                  "Only HVM domains can be protected");
    auto type = read("/libxl/" + id_ + "/type");
    if (!type) return type.error();
    if (*type == "pvh")
        return no("a PVH domain: its event channels live in the hypervisor and cannot be copied while it runs. Only HVM "
                  "domains can be protected");
    if (*type != "hvm") return no(fmt::format("xl says its type is '{}', not hvm; was it made by another toolstack?", *type));
    return std::string("hvm");
}

Precheck::Answer Precheck::paging()
{
    auto info = control_.info();
    if (!info) return info.error();
    if (!info->hvm) return std::string(kHvmOnly);
    if (!info->hap)
        return no("shadow paging: there is no dirty log for it in this hypervisor. Set hap=1 in the domain's configuration, on a "
                  "host whose processor has nested paging (EPT, NPT)");
    return std::string("hardware assisted");
}

// The type of a PV device whose driver in the guest is connected; empty: none.
Result<std::string> Precheck::connected_frontend()
{
    const std::string base = "/local/domain/" + id_ + "/device";
    auto types = store_.list(base);
    if (!types) return types.error();
    for (const std::string& type : *types) {
        auto devices = store_.list(base + "/" + type);
        if (!devices) return devices.error();
        for (const std::string& device : *devices) {
            auto state = read(base + "/" + type + "/" + device + "/state");
            if (!state) return state.error();
            if (has_driver(*state)) return shown(type) + "/" + shown(device);
        }
    }
    return std::string();
}

Precheck::Answer Precheck::drivers()
{
    constexpr const char* kRemedy =
        "Event channels and grants live in the hypervisor and cannot be copied, and such drivers exchange frames behind "
        "our back. Set xen_platform_pci=0 in the domain's configuration and start its kernel with 'nopv'";
    auto info = control_.info();
    if (!info) return info.error();
    if (!info->hvm) return std::string(kHvmOnly);
    auto callback = control_.param(Param::callback_irq);
    if (!callback) return callback.error();
    if (*callback != 0) return no(fmt::format("the guest's kernel takes events from Xen (callback {:#x}). {}", *callback, kRemedy));
    auto frontend = connected_frontend();
    if (!frontend) return frontend.error();
    if (!frontend->empty()) return no(fmt::format("the guest has a PV driver at work ({}). {}", *frontend, kRemedy));
    return std::string("no PV drivers");
}

Precheck::Answer Precheck::passthrough()
{
    auto devices = store_.list("/libxl/" + id_ + "/device/pci");
    if (!devices) return devices.error();
    if (!devices->empty()) return no("PCI devices are passed through: their state cannot be copied. Take them out of the configuration");
    return std::string("no devices passed through");
}

Precheck::Answer Precheck::vnuma()
{
    auto nodes = control_.vnuma_nodes();
    if (!nodes) return nodes.error();
    if (*nodes > 0) return no(fmt::format("a NUMA topology of its own ({} nodes). Take vnuma out of the configuration", *nodes));
    return std::string("no NUMA topology of its own");
}

Precheck::Answer Precheck::memory()
{
    // In KiB; the video memory is taken out of the target.
    std::array<std::uint64_t, 3> sizes{};
    constexpr std::array<const char*, 3> kNames = {"static-max", "target", "videoram"};
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        auto value = read("/local/domain/" + id_ + "/memory/" + kNames[i]);
        if (!value) return value.error();
        const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), sizes[i]);
        if (error != std::errc() || end != value->data() + value->size())
            return no(fmt::format("xl says its memory/{} is '{}'; was it made by another toolstack?", kNames[i], *value));
    }
    const auto [most, target, video] = sizes;
    if (target > most || video > most - target || most - target - video != 0)
        return no(fmt::format("a memory target of {} KiB, {} KiB of video memory, but up to {} KiB: frames come and go. Set maxmem to the "
                              "value of memory",
                              target, video, most));
    return fmt::format("{} KiB, all of it at once", most);
}

Precheck::Answer Precheck::device_model()
{
    auto state = read("/local/domain/0/device-model/" + id_ + "/state");
    if (!state) return state.error();
    if (*state != "running") return no(fmt::format("there is no device model in dom0 that runs (state '{}')", *state));
    auto stub = read("/local/domain/" + id_ + "/image/device-model-domid");
    if (!stub) return stub.error();
    if (!stub->empty()) return no(fmt::format("the device model is domain {}; set device_model_stubdomain_override=0", *stub));
    auto version = read("/libxl/" + id_ + "/dm-version");
    if (!version) return version.error();
    if (*version != "qemu_xen") return no(fmt::format("device model of version '{}'; only qemu-xen can be saved and loaded", *version));
    const std::string socket = model_socket(control_.domain());
    if (!exists_(socket)) return no(fmt::format("the device model has no control socket {}", socket));
    return std::string("qemu_xen, running");
}

Precheck::Answer Precheck::tsc()
{
    auto tsc = control_.tsc();
    if (!tsc) return tsc.error();
    if (tsc->mode > 2)
        return no(fmt::format("TSC mode {} shares time with the guest through the hypervisor. Set tsc_mode to default, native or "
                              "always_emulate",
                              tsc->mode));
    constexpr const char* kNames[] = {"default", "always emulated", "native"};
    return fmt::format("{}, {} kHz", kNames[tsc->mode], tsc->khz);
}

}  // namespace

std::vector<Finding> precheck(Control& control, Store& store, const std::function<bool(const std::string&)>& exists)
{
    return Precheck(control, store, exists).run();
}

std::vector<Finding> precheck(Control& control, Store& store)
{
    return precheck(control, store, [](const std::string& file) { return ::access(file.c_str(), F_OK) == 0; });
}

Result<void> refuse(const std::vector<Finding>& findings)
{
    constexpr int kNamed = 3;
    std::string text;
    int bad = 0;
    for (const Finding& finding : findings)
        if (!finding.ok && ++bad <= kNamed) text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", finding.check, finding.text);
    if (bad == 0) return {};
    if (bad > kNamed) text += fmt::format("; and {} more", bad - kNamed);
    return make_error(Errc::unsupported, "the domain cannot be protected: " + text);
}

std::string model_socket(DomainId domain) { return fmt::format("/var/run/xen/qmp-libxl-{}", domain); }

}  // namespace colo::xen
