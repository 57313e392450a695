// SPDX-License-Identifier: Apache-2.0
#include "tests/guest/test_guest.h"

#include <fmt/format.h>

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/if_bridge.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace colo::test {
namespace {

constexpr const char* kBridge = "cqbr";

// One ioctl on a network interface by name; `prepare` fills the rest of the request.
template <class Prepare>
bool interface_ioctl(unsigned long request, const char* name, Prepare&& prepare)
{
    const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq argument{};
    std::strncpy(argument.ifr_name, name, IFNAMSIZ - 1);
    prepare(argument);
    const bool done = ::ioctl(s, request, &argument) == 0;
    ::close(s);
    return done;
}

void set_up(const char* name)
{
    interface_ioctl(SIOCSIFFLAGS, name, [](ifreq& r) { r.ifr_flags = IFF_UP; });
}

// 10.77.0.1/24 on a bridge: the address, and with it the connections of this process, stay when the guest's tap changes.
bool make_bridge()
{
    const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const bool made = ::ioctl(s, SIOCBRADDBR, kBridge) == 0;
    ::close(s);
    unsigned long no_forward_delay[4] = {BRCTL_SET_BRIDGE_FORWARD_DELAY, 0, 0, 0};
    interface_ioctl(SIOCDEVPRIVATE, kBridge, [&](ifreq& r) { r.ifr_data = reinterpret_cast<char*>(no_forward_delay); });
    // An address of its own: one borrowed from a port would change with the ports, and forget the neighbours.
    constexpr std::uint8_t kMac[6] = {0x52, 0x54, 0, 0x77, 0, 1};
    interface_ioctl(SIOCSIFHWADDR, kBridge, [&](ifreq& r) {
        r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
        std::memcpy(r.ifr_hwaddr.sa_data, kMac, sizeof kMac);
    });
    sockaddr_in in{};
    in.sin_family = AF_INET;
    ::inet_pton(AF_INET, "10.77.0.1", &in.sin_addr);
    interface_ioctl(SIOCSIFADDR, kBridge, [&](ifreq& r) { std::memcpy(&r.ifr_addr, &in, sizeof in); });
    in.sin_addr.s_addr = htonl(0xffffff00u);
    interface_ioctl(SIOCSIFNETMASK, kBridge, [&](ifreq& r) { std::memcpy(&r.ifr_netmask, &in, sizeof in); });
    set_up(kBridge);
    return made;
}

void write_text(const char* path, const char* text)
{
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    if (::write(fd, text, std::strlen(text)) < 0) std::perror(path);
    ::close(fd);
}

void join(const std::string& name, unsigned long request)
{
    const int index = static_cast<int>(::if_nametoindex(name.c_str()));
    interface_ioctl(request, kBridge, [&](ifreq& r) { r.ifr_ifindex = index; });
}

}  // namespace

Deadline in_ms(long ms) { return now() + std::chrono::milliseconds(ms); }

std::string guest_image_directory()
{
    const char* directory = std::getenv("COLO_GUEST_DIR");
    return directory != nullptr ? directory : "build/guest";
}

namespace {

// Under TCG the guest's TSC is the host's. A guest that has to measure its frequency while the host is busy can be wrong by a
// factor; its clock then races, and ACPI gives up on the NIC's interrupt.
std::string tsc_option()
{
#ifdef __x86_64__
    static const std::uint64_t khz = [] {
        const Time before = now();
        const std::uint64_t first = __builtin_ia32_rdtsc();
        ::usleep(50000);
        const std::uint64_t ticks = __builtin_ia32_rdtsc() - first;
        return ticks * 1000 / static_cast<std::uint64_t>((now() - before).count());
    }();
    return fmt::format("tsc_early_khz={} ", (khz + 500) / 1000 * 1000);
#else
    return {};
#endif
}

}  // namespace

std::string kernel_command_line(const std::string& more)
{
    return tsc_option() + "console=ttyS0 quiet reboot=t panic=-1 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on " + more;
}

bool have_private_network()
{
    static const bool have = [] {
        if (::unshare(CLONE_NEWNET) != 0) return false;
        set_up("lo");
        // No chatter of the host's own: some tests count frames.
        write_text("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        const int tun = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        if (tun >= 0) ::close(tun);
        return tun >= 0 && make_bridge();
    }();
    return have;
}

void fix_guest_neighbour(const std::array<std::uint8_t, 6>& mac)
{
    const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    arpreq request{};
    sockaddr_in in{};
    in.sin_family = AF_INET;
    ::inet_pton(AF_INET, "10.77.0.2", &in.sin_addr);
    std::memcpy(&request.arp_pa, &in, sizeof in);
    request.arp_ha.sa_family = ARPHRD_ETHER;
    std::memcpy(request.arp_ha.sa_data, mac.data(), mac.size());
    request.arp_flags = ATF_PERM | ATF_COM;
    std::strncpy(request.arp_dev, kBridge, sizeof request.arp_dev - 1);
    if (::ioctl(s, SIOCSARP, &request) != 0) std::perror("arp entry");
    ::close(s);
}

Tap::Tap(const std::string& name) : name_(name), fd_(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK))
{
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (::ioctl(fd_, TUNSETIFF, &request) != 0) std::perror("tap");
    set_up(name.c_str());
}

Tap::~Tap() { ::close(fd_); }

void Tap::select() { join(name_, SIOCBRADDIF); }
void Tap::unselect() { join(name_, SIOCBRDELIF); }

int Tap::take_all()
{
    char frame[2048];
    int frames = 0;
    while (::read(fd_, frame, sizeof frame) > 0) ++frames;
    return frames;
}

TestGuest::TestGuest(const std::string& name, const std::string& more, Tap* tap)
{
    options.name = name;
    options.run_directory = "/tmp/qemu-guest-test.XXXXXX";
    if (::mkdtemp(options.run_directory.data()) == nullptr) std::perror("mkdtemp");
    options.kernel = guest_image_directory() + "/vmlinuz";
    options.initrd = guest_image_directory() + "/initrd.gz";
    options.append = kernel_command_line(more);
    options.accelerator = "tcg";
    options.device_load = "snapshot";
    options.memory_mib = 192;
    qemu::EmbeddedNic nic;
    nic.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
    if (tap != nullptr) {
        nic.fd = tap->fd();
        nic.netdev_argument = [](int fd) { return fmt::format("tap,id=net0,fd={},vhost=off", fd); };
    } else {
        const std::string path = options.run_directory + "/net.sock";
        nic.netdev_argument = [path](int) { return "stream,id=net0,server=on,addr.type=unix,addr.path=" + path; };
    }
    options.nics.push_back(nic);
}

TestGuest::~TestGuest()
{
    guest_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(options.run_directory, ignored);
}

qemu::EmbeddedGuest& TestGuest::make()
{
    auto made = qemu::make_embedded_guest(options);
    if (!made) {
        std::fprintf(stderr, "%s\n", made.error().text.c_str());
        std::abort();
    }
    guest_ = std::move(*made);
    guest_->set_event_handler([this](replication::GuestEvent event) {
        const std::lock_guard lock(mutex_);
        events_.push_back(std::move(event));
        changed_.notify_all();
    });
    return *guest_;
}

std::string TestGuest::serial() const
{
    std::ifstream in(options.run_directory + "/serial.log");
    return {std::istreambuf_iterator<char>(in), {}};
}

bool TestGuest::wait_serial(const std::string& text, long ms) const
{
    const Deadline deadline = in_ms(ms);
    do {
        if (serial().find(text) != std::string::npos) return true;
        ::usleep(20000);
    } while (now() < deadline);
    return false;
}

bool TestGuest::wait_event(replication::GuestEventKind kind, long ms)
{
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(ms), [&] {
        return std::any_of(events_.begin(), events_.end(), [&](const auto& event) { return event.kind == kind; });
    });
}

std::vector<replication::GuestEvent> TestGuest::events()
{
    const std::lock_guard lock(mutex_);
    return events_;
}

LineClient::LineClient(int port)
{
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, "10.77.0.2", &address.sin_addr);
    // A guest on a busy machine can take longer to answer than ARP is willing to wait.
    const Deadline deadline = in_ms(60000);
    do {
        if (fd_ >= 0) ::close(fd_);
        fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const timeval limit{20, 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return;
    } while (now() < deadline);
    std::perror("connect to the guest");
}

LineClient::~LineClient() { ::close(fd_); }

std::string LineClient::ask(const std::string& line)
{
    const std::string text = line + "\n";
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) return {};
    std::string answer;
    for (;;) {
        char c = 0;
        const ssize_t n = ::recv(fd_, &c, 1, 0);
        if (n < 0 && errno == EINTR) continue;   // a child's end; with SO_RCVTIMEO the call is not restarted
        if (n != 1) return {};
        if (c == '\n') return answer;
        answer += c;
    }
}

UdpClient::UdpClient(int port) : fd_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))
{
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, "10.77.0.2", &address.sin_addr);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) std::perror("udp");
}

UdpClient::~UdpClient() { ::close(fd_); }

void UdpClient::send(const std::string& text) { (void)!::write(fd_, text.data(), text.size()); }

std::string UdpClient::receive(long ms)
{
    const Deadline deadline = in_ms(ms);
    do {
        pollfd p{fd_, POLLIN, 0};
        char text[2048];
        if (::poll(&p, 1, poll_timeout_ms(deadline)) != 1) continue;
        const ssize_t n = ::read(fd_, text, sizeof text);
        if (n > 0) return {text, static_cast<std::size_t>(n)};
    } while (now() < deadline);
    return {};
}

std::string UdpClient::ask(const std::string& text, long ms)
{
    send(text);
    return receive(ms);
}

long long guest_status(const std::string& member)
{
    LineClient client(2000);
    const std::string status = client.ask("status");
    const std::size_t at = status.find("\"" + member + "\": ");
    return at == std::string::npos ? -1 : std::atoll(status.c_str() + at + member.size() + 4);
}

}  // namespace colo::test
