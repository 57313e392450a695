// SPDX-License-Identifier: Apache-2.0
#include "qemu/options.h"

#include "qemu/process.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace colo::qemu {
namespace {

bool plain_word(const std::string& text)
{
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '+';
    });
}

Error bad(std::string_view option, std::string_view why) { return make_error(Errc::invalid, fmt::format("{}: {}", option, why)); }

std::string mac_text(const std::array<std::uint8_t, 6>& m)
{
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5]);
}

Result<void> digest_file(XXH3_state_t* state, const std::string& path)
{
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return errno_error("open " + path, errno);
    Bytes buffer(1u << 20);
    for (;;) {
        const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
        if (n < 0) return errno_error("read " + path, errno);
        if (n == 0) return {};
        XXH3_128bits_update(state, buffer.data(), static_cast<std::size_t>(n));
    }
}

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

}  // namespace

InheritedFds inherited_fd_numbers()
{
    constexpr int f = kFirstInheritedFd;
    return {f, f + 1, f + 2, f + 3, f + 4, f + 5, f + 6, f + 7};
}

Result<void> check_options(const EmbeddedGuestOptions& o)
{
    if (!plain_word(o.name)) return bad("name", "letters, digits and -_.+ only");
    if (o.run_directory.empty() || o.run_directory[0] != '/') return bad("run_directory", "must be an absolute path");
    if (!plain_word(o.machine)) return bad("machine", "must be one of QEMU's machine names");
    if (!o.machine.starts_with("pc-i440fx-")) return bad("machine", "must be a versioned pc-i440fx-... (\"pc\" differs between QEMU versions)");
    if (o.cpu_model.empty() || o.cpu_model == "host" || o.cpu_model == "max")
        return bad("cpu_model", "must be a named model: \"host\" and \"max\" differ between hosts");
    if (o.memory_mib < 32 || o.memory_mib > 1u << 20) return bad("memory_mib", "must lie between 32 and 1048576");
    if (o.vcpus < 1 || o.vcpus > 64) return bad("vcpus", "must lie between 1 and 64");
    if (o.kernel.empty()) return bad("kernel", "is missing");
    if (o.accelerator != "auto" && o.accelerator != "tcg" && o.accelerator != "kvm") return bad("accelerator", "auto, tcg or kvm");
    if (o.nics.size() > 8) return bad("nics", "at most 8");
    for (const EmbeddedNic& nic : o.nics) {
        if (!plain_word(nic.id)) return bad("nics", "id: letters, digits and -_.+ only");
        if (!nic.netdev_argument) return bad("nics", nic.id + " has no netdev argument");
        if ((nic.mac[0] & 1) != 0) return bad("nics", nic.id + " has a multicast MAC address");
    }
    return {};
}

CommandLine make_command_line(const EmbeddedGuestOptions& o, const std::string& accelerator)
{
    const InheritedFds fds = inherited_fd_numbers();
    CommandLine line;
    auto& a = line.argv;
    const auto add = [&](std::initializer_list<std::string> words) { a.insert(a.end(), words); };
    a.push_back(o.qemu_binary);
    add({"-name", o.name + ",debug-threads=on", "-S", "-no-shutdown", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"});
    // From here on: what the guest can see.
    const std::size_t visible_from = a.size();
    add({"-machine", fmt::format("{},memory-backend=ram,hpet=off,usb=off,smm=off,vmport=off,i8042=off,suppress-vmdesc=on", o.machine)});
    add({"-cpu", o.cpu_model, "-m", fmt::format("{}M", o.memory_mib), "-smp", fmt::format("{}", o.vcpus)});
    add({"-global", "migration.send-configuration=off", "-global", "migration.store-global-state=off"});
    add({"-device", "pvpanic"});
    constexpr std::size_t kFirstSlot = 3;
    for (std::size_t i = 0; i < o.nics.size(); ++i)
        add({"-device", fmt::format("virtio-net-pci,id=nic-{},netdev=net{},mac={},romfile=,guest_announce=off,disable-modern=on,disable-legacy=off,addr={:#x}",
                                    o.nics[i].id, i, mac_text(o.nics[i].mac), kFirstSlot + i)});
    for (std::size_t i = visible_from; i < a.size(); ++i) line.device_list += a[i] + " ";
    // From here on: where its parts come from.
    add({"-accel", accelerator, "-kernel", o.kernel});
    if (!o.initrd.empty()) add({"-initrd", o.initrd});
    if (!o.append.empty()) add({"-append", o.append});
    add({"-object", fmt::format("memory-backend-file,id=ram,mem-path=/proc/self/fd/{},size={}M,share=on", fds.ram, o.memory_mib)});
    // Not a file of QEMU's: that would grow for as long as the guest writes.
    add({"-chardev", fmt::format("socket,id=serial,fd={}", fds.serial), "-serial", "chardev:serial"});
    add({"-chardev", fmt::format("socket,id=control,fd={}", fds.control), "-mon", "chardev=control,mode=control"});
    add({"-chardev", fmt::format("socket,id=state,fd={}", fds.state), "-mon", "chardev=state,mode=control"});
    add({"-chardev", fmt::format("socket,id=probe,fd={}", fds.probe), "-mon", "chardev=probe,mode=control"});
    add({"-blockdev", fmt::format("driver=qcow2,node-name=snapshot,file.driver=file,file.filename=/proc/self/fd/{},file.locking=off", fds.snapshot)});
    int fd = fds.first_nic;
    for (const EmbeddedNic& nic : o.nics) add({"-netdev", nic.netdev_argument(nic.fd >= 0 ? fd++ : -1)});
    return line;
}

Result<std::string> boot_digest(const EmbeddedGuestOptions& options)
{
    XXH3_state_t* const state = XXH3_createState();
    XXH3_128bits_reset(state);
    Result<void> done = digest_file(state, options.kernel);
    if (done && !options.initrd.empty()) done = digest_file(state, options.initrd);
    XXH3_128bits_update(state, options.append.data(), options.append.size());
    const std::string digest = hex(XXH3_128bits_digest(state));
    XXH3_freeState(state);
    if (!done) return done.error();
    return digest;
}

std::string text_digest(const std::string& text) { return hex(XXH3_128bits(text.data(), text.size())); }

}  // namespace colo::qemu
