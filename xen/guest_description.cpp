// SPDX-License-Identifier: Apache-2.0
#include "xen/guest_description.h"

#include "qemu/options.h"
#include "xen/memory_layout.h"

#include <fmt/format.h>

namespace colo::xen {

using replication::GuestDescription;

namespace {

// Settings that a domain gets when it is made and that its CPU context does not contain.
Result<std::string> platform(Control& control)
{
    const auto version = control.hypervisor();
    if (!version) return version.error();
    std::string out = "hvm on Xen " + *version;
    constexpr std::pair<Param, const char*> kCompared[] = {{Param::viridian, "viridian"}, {Param::acpi_ioports_location, "acpi-ioports"},
                                                           {Param::x87_fip_width, "x87-fip-width"}, {Param::mca_capabilities, "mca"}};
    for (const auto& [param, name] : kCompared) {
        const auto value = control.param(param);
        if (!value) return value.error();
        out += fmt::format(" {}={:#x}", name, *value);
    }
    const auto tsc = control.tsc();
    if (!tsc) return tsc.error();
    return out + fmt::format(" tsc-mode={}", tsc->mode);
}

std::string text_of(const std::vector<replication::MemoryRegion>& regions)
{
    std::string out;
    for (const auto& one : regions) out += fmt::format("{}{} frames at {:#x}", out.empty() ? "" : ", ", one.pages, one.first);
    return out.empty() ? "none" : out;
}

std::string text_of(const std::vector<Gfn>& frames)
{
    std::string out;
    for (const Gfn one : frames) out += fmt::format("{}{:#x}", out.empty() ? "" : ", ", one);
    return out.empty() ? "none" : out;
}

}  // namespace

Result<GuestDescription> describe(Control& control, const std::string& model_version, const std::string& config, const std::vector<HvmNic>& nics)
{
    const auto layout = probe_layout(control);
    if (!layout) return layout.error();
    const auto info = control.info();
    if (!info) return info.error();
    const auto machine = platform(control);
    if (!machine) return machine.error();
    const auto policy = control.cpu_policy();
    if (!policy) return policy.error();
    GuestDescription made;
    made.kind = "xen-hvm";
    made.accelerator = "xen";
    made.machine = *machine;
    made.cpu_policy = qemu::text_digest(std::string(policy->begin(), policy->end()));
    made.device_model = model_version;
    made.device_list = "xl configuration " + qemu::text_digest(config);
    made.vcpus = info->vcpus;
    const auto tsc = control.tsc();
    if (!tsc) return tsc.error();
    made.tsc_khz = tsc->khz;
    made.regions = layout->regions;
    made.special_frames = layout->special_frames;
    for (const HvmNic& nic : nics) made.nics.push_back({nic.id, nic.mac, 0});
    return made;
}

Result<void> check_same(const GuestDescription& agreed, const GuestDescription& made)
{
    const auto differs = [](const char* what, const std::string& before, const std::string& now, const char* cause) {
        return make_error(Errc::failed, fmt::format("{} of the new domain differs: before \"{}\", now \"{}\"; {}. To go on with the new one, start this "
                                                    "daemon again",
                                                    what, before, now, cause));
    };
    constexpr const char* kUpdated = "was Xen, its microcode or the command for xl changed meanwhile?";
    if (agreed.machine != made.machine) return differs("the platform", agreed.machine, made.machine, kUpdated);
    if (agreed.cpu_policy != made.cpu_policy) return differs("the CPU policy (digest)", agreed.cpu_policy, made.cpu_policy, kUpdated);
    if (agreed.device_model != made.device_model)
        return differs("the device model", agreed.device_model, made.device_model, "was its package updated meanwhile?");
    if (agreed.vcpus != made.vcpus)
        return differs("the number of vCPUs", std::to_string(agreed.vcpus), std::to_string(made.vcpus), kUpdated);
    if (agreed.regions != made.regions)
        return differs("the memory map", text_of(agreed.regions), text_of(made.regions),
                       "a warm-up that is too short ([guest] xl_warm_up_ms), or a command for xl that restores another image?");
    if (agreed.special_frames != made.special_frames)
        return differs("what belongs to the host", text_of(agreed.special_frames), text_of(made.special_frames), kUpdated);
    return {};
}

}  // namespace colo::xen
