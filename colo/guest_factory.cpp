// SPDX-License-Identifier: Apache-2.0
#include "colo/guest_factory.h"

#include "qemu/embedded_guest.h"
#ifdef COLO_WITH_XEN
#include "xen/hvm_guest.h"
#endif

#include <fmt/format.h>

#include <chrono>

namespace colo {
namespace {

Result<MadeGuest> make_qemu(const Config& config, const std::string& run_directory, proxy::ProxyRuntime& runtime)
{
    qemu::EmbeddedGuestOptions options;
    const GuestConfig& g = config.guest;
    options.name = config.domain.name;
    options.run_directory = run_directory;
    options.qemu_binary = g.qemu_binary;
    options.machine = g.machine;
    options.cpu_model = g.cpu;
    options.memory_mib = static_cast<std::uint32_t>(g.memory_mib);
    options.vcpus = g.vcpus;
    options.kernel = g.kernel;
    options.initrd = g.initrd;
    options.append = g.append;
    static constexpr const char* kAccelerator[] = {"auto", "tcg", "kvm"};
    static constexpr const char* kDirty[] = {"auto", "uffd-wp", "soft-dirty", "compare"};
    static constexpr const char* kLoad[] = {"auto", "snapshot", "xen-load"};
    options.accelerator = kAccelerator[static_cast<int>(g.accelerator)];
    options.dirty_log = kDirty[static_cast<int>(g.dirty_log)];
    options.device_load = kLoad[static_cast<int>(g.device_load)];
    for (std::size_t i = 0; i < config.nics.size(); ++i) {
        qemu::EmbeddedNic nic;
        nic.id = config.nics[i].id;
        nic.mac = config.nics[i].mac;
        nic.fd = runtime.guest_fd(static_cast<std::uint8_t>(i));
        nic.netdev_argument = [&runtime, i](int fd) { return runtime.netdev_argument(static_cast<std::uint8_t>(i), fd); };
        options.nics.push_back(std::move(nic));
    }
    auto guest = qemu::make_embedded_guest(options);
    if (!guest) return guest.error();
    const qemu::EmbeddedGuestChoices& c = (*guest)->choices();
    MadeGuest made;
    made.guest = std::move(*guest);
    made.started_as = [&c] {
        const auto why = [](const std::string& text) { return text.empty() ? "" : " (" + text + ")"; };
        return fmt::format("accelerator {}{}, dirty_log {}{}, device_load {}{}", c.accelerator, why(c.accelerator_why), c.dirty_log,
                           why(c.dirty_log_why), c.device_load, why(c.device_load_why));
    };
    return made;
}

#ifdef COLO_WITH_XEN
Result<MadeGuest> make_xen(const Config& config, const std::string& run_directory, proxy::ProxyRuntime& runtime)
{
    xen::HvmGuestOptions options;
    const GuestConfig& g = config.guest;
    options.name = config.domain.name;
    options.config_file = g.xl_config;
    options.run_directory = run_directory;
    options.commands = {g.xl_create, g.xl_destroy, g.xl_rename};
    options.warm_up = std::chrono::milliseconds(g.xl_warm_up_ms);
    for (std::size_t i = 0; i < config.nics.size(); ++i) {
        xen::HvmNic nic;
        nic.id = config.nics[i].id;
        nic.mac = config.nics[i].mac;
        nic.fd = runtime.guest_fd(static_cast<std::uint8_t>(i));
        options.nics.push_back(std::move(nic));
    }
    auto guest = xen::make_hvm_guest(std::move(options));
    if (!guest) return guest.error();
    MadeGuest made;
    made.guest = std::move(*guest);
    made.started_as = [made = made.guest.get()] { return "device model " + made->description().device_model; };
    return made;
}
#else
Result<MadeGuest> make_xen(const Config&, const std::string&, proxy::ProxyRuntime&)
{
    return make_error(Errc::unsupported, "guest.type = \"xen\": this program was built without libxen-dev; install it, and build again");
}
#endif

}  // namespace

Result<MadeGuest> make_configured_guest(const Config& config, const std::string& run_directory, proxy::ProxyRuntime& runtime)
{
    switch (config.guest.type) {
    case GuestType::xen: return make_xen(config, run_directory, runtime);
    case GuestType::qemu: break;
    }
    return make_qemu(config, run_directory, runtime);
}

}  // namespace colo
