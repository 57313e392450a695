// SPDX-License-Identifier: Apache-2.0
#include "xen/domain_config.h"

#include <fmt/format.h>

#include <algorithm>

namespace colo::xen {
namespace {

constexpr std::size_t kFirstSlot = 8;   // in front are the devices of xl

// Calls `take(key, statement)` for each statement, taken apart as xl does it: a line's end or a semicolon ends one unless a list is
// open, and += adds to a list. The statement comes without comments and without blanks outside of quotes.
template <class Take>
void each_statement(std::string_view text, const Take& take)
{
    std::string statement;
    const auto finish = [&] {
        const std::size_t equal = statement.find('=');
        std::string_view key = std::string_view(statement).substr(0, equal == std::string::npos ? 0 : equal);
        if (key.ends_with('+')) key.remove_suffix(1);
        if (!statement.empty()) take(key, std::string_view(statement));
        statement.clear();
    };
    char quote = 0;
    int open = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quote != 0 && c != '\n') {   // no string has more than one line
            statement += c;
            if (c == '\\' && i + 1 < text.size()) statement += text[++i];
            else if (c == quote) quote = 0;
            continue;
        }
        quote = c == '"' || c == '\'' ? c : '\0';
        if (c == '#') i = std::min(text.find('\n', i), text.size()) - 1;   // the end of the line is still to be seen
        else if (open <= 0 && (c == '\n' || c == ';')) finish();
        else if (c > ' ') statement += c;
        open += c == '[' ? 1 : c == ']' ? -1 : 0;
    }
    finish();
}

std::string_view value_in(std::string_view statement) { return statement.substr(statement.find('=') + 1); }

// Strings of a value, without their quotes.
std::vector<std::string> strings_in(std::string_view value)
{
    std::vector<std::string> out;
    char quote = 0;
    for (std::size_t i = 0; i < value.size(); ++i) {
        const char c = value[i];
        if (quote == 0) {
            if (c == '"' || c == '\'') out.emplace_back();
            quote = c == '"' || c == '\'' ? c : '\0';
        } else if (c == '\\' && i + 1 < value.size()) {
            out.back() += value[++i];
        } else if (c == quote) {
            quote = 0;
        } else {
            out.back() += c;
        }
    }
    return out;
}

// An option of the device model that gives the domain something beside memory, CPUs and devices, or another way out.
bool goes_around(std::string_view option)
{
    if (!option.starts_with('-')) return false;
    option.remove_prefix(option.starts_with("--") ? 2 : 1);
    constexpr std::string_view kOptions[] = {"netdev", "nic",    "net",   "drive", "blockdev", "hda",       "hdb",      "hdc",    "hdd",
                                             "cdrom",  "fda",    "fdb",   "sd",    "pflash",   "mtdblock",  "fsdev",    "virtfs", "usbdevice",
                                             "incoming", "loadvm", "snapshot", "readconfig", "vga"};
    return std::find(std::begin(kOptions), std::end(kOptions), option) != std::end(kOptions);
}

// The model of a -device whose state is not in a checkpoint: a device of this host, or a graphics card.
bool is_beyond_us(std::string_view device)
{
    if (device.starts_with("driver=")) device.remove_prefix(7);
    device = device.substr(0, device.find(','));
    constexpr std::string_view kBeginnings[] = {"usb-host", "vfio", "xen-pci-passthrough", "VGA", "cirrus-vga", "qxl", "virtio-vga", "virtio-gpu",
                                                "bochs-display", "secondary-vga", "vmware-svga"};
    return std::any_of(std::begin(kBeginnings), std::end(kBeginnings), [&](std::string_view one) { return device.starts_with(one); });
}

// Why a domain with this setting cannot be protected; empty: it can.
std::string objection(std::string_view key, std::string_view value)
{
    const bool empty = value.find_first_not_of("[]") == std::string_view::npos;
    const std::vector<std::string> strings = strings_in(value);
    const std::string word = strings.empty() ? std::string(value) : strings.front();
    if (key == "vif" && !empty)
        return "has a vif, whose traffic would bypass the comparison. Take it out and describe the interface in a [[nic]] section instead";
    if (key == "disk" && !empty)
        return "has a disk: both copies would write to it. Disks come with a later version; until then a domain runs from its kernel and initial "
               "RAM disk";
    if ((key == "usbdev" && !empty) || (key == "usbdevice" && value.find("host:") != std::string_view::npos))
        return "passes a USB device of this host through: its state cannot be copied. Take it out";
    if (key == "nestedhvm" && word != "0") return "has nestedhvm: the state of the guest's own guests is not in a checkpoint. Take it out";
    if (key == "vga" && word != "none")
        return "has a graphics card: what is on its way to it is not in a checkpoint. Set vga = \"none\", and use the serial line";
    if (!key.starts_with("device_model_args")) return {};
    auto bad = std::find_if(strings.begin(), strings.end(), goes_around);
    for (auto one = strings.begin(); bad == strings.end() && one != strings.end(); ++one)
        if ((*one == "-device" || *one == "--device") && one + 1 != strings.end() && is_beyond_us(*(one + 1))) bad = one + 1;
    if (bad == strings.end()) return {};
    return fmt::format("gives the device model {}, which adds a network card, a disk, a device or a state that is not compared or not copied. Take it out; an "
                       "interface is described in a [[nic]] section",
                       *bad);
}

bool plain(std::string_view text)
{
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~' && c != '"' && c != '\'' && c != '\\'; });
}

std::string mac_text(const std::array<std::uint8_t, 6>& mac)
{
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

// In the options of a device model a comma ends a value, unless there are two.
std::string value_of(const std::string& text)
{
    std::string out;
    for (const char c : text) out.append(c == ',' ? 2 : 1, c);
    return out;
}

void add_monitor(std::vector<std::string>& arguments, const char* name, const std::string& socket)
{
    arguments.insert(arguments.end(), {"-chardev", fmt::format("socket,id=colo-{},path={},server=on,wait=off", name, value_of(socket)), "-mon",
                                       fmt::format("chardev=colo-{},mode=control", name)});
}

}  // namespace

Result<std::string> domain_config(std::string_view operators, const DomainConfigOptions& options)
{
    if (operators.size() > kMaxDomainConfig) return make_error(Errc::limit, "the domain's configuration is larger than 64 KiB");
    bool common = false, hvm_only = false;
    std::string why;
    each_statement(operators, [&](std::string_view key, std::string_view statement) {
        common |= key == "device_model_args";
        hvm_only |= key == "device_model_args_hvm";
        if (why.empty()) why = objection(key, value_in(statement));
    });
    if (!why.empty()) return make_error(Errc::invalid, "the domain's configuration " + why);
    if (common && hvm_only)
        return make_error(Errc::invalid, "the domain's configuration has both device_model_args and device_model_args_hvm; put all of it into one of "
                                         "them: the other one is needed here");
    std::vector<std::string> arguments;
    add_monitor(arguments, "control", options.control_socket);
    add_monitor(arguments, "probe", options.probe_socket);
    // A hub is where a cable can be put in and out while the domain runs (DeviceModel::connect_cable). A socket in its place
    // would not do: this QEMU crashes when a guest sends while nobody is connected.
    for (std::size_t i = 0; i < options.nics.size(); ++i) {
        const HvmNic& nic = options.nics[i];
        arguments.insert(arguments.end(), {"-netdev", fmt::format("hubport,id=net{},hubid={}", i, kFirstHub + i), "-device",
                                           fmt::format("virtio-net-pci,id=nic-{},netdev=net{},mac={},romfile=,guest_announce=off,disable-modern=on,"
                                                       "disable-legacy=off,addr={:#x}",
                                                       nic.id, i, mac_text(nic.mac), kFirstSlot + i)});
    }
    if (!plain(options.name) || options.name.empty()) return make_error(Errc::invalid, "a name that xl's configuration cannot hold: " + options.name);
    std::string quoted;
    for (const std::string& one : arguments) {
        if (!plain(one)) return make_error(Errc::invalid, "an argument that xl's configuration cannot hold: " + one);
        quoted += fmt::format("{}\"{}\"", quoted.empty() ? "" : ", ", one);
    }
    std::string out(operators);
    out += fmt::format("\n# Added by colod.\nname = \"{}\"\n{} = [ {} ]\n", options.name, hvm_only ? "device_model_args" : "device_model_args_hvm", quoted);
    out += "vga = \"none\"\n";   // xl's default is one
    if (!options.uuid.empty()) out += fmt::format("uuid = \"{}\"\n", options.uuid);
    // What becomes of a domain that has ended is decided here and not by xl.
    for (const char* end : {"on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset"}) out += fmt::format("{} = \"preserve\"\n", end);
    return out;
}

Result<std::optional<Uuid>> config_uuid(std::string_view operators)
{
    std::string text;
    bool found = false;
    each_statement(operators, [&](std::string_view key, std::string_view statement) {
        if (key != "uuid") return;
        found = true;
        text = value_in(statement);
    });
    if (!found) return std::optional<Uuid>();
    std::erase_if(text, [](char c) { return c == '"' || c == '\''; });
    const auto uuid = parse_uuid(text);
    if (!uuid) return make_error(Errc::invalid, "uuid is no UUID: " + text);
    return uuid;
}

std::string comparable_config(std::string_view operators)
{
    std::string out;
    each_statement(operators, [&](std::string_view key, std::string_view statement) {
        if (key != "name") out.append(statement).push_back('\n');
    });
    return out;
}

}  // namespace colo::xen
