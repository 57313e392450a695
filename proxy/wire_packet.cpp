// SPDX-License-Identifier: Apache-2.0
#include "proxy/packet_socket.h"
#include "proxy/wire.h"

namespace colo::proxy {
namespace {

class PacketWire final : public WirePort {
public:
    PacketWire(std::string interface, PacketSocket socket)
        : interface_(std::move(interface)), socket_(std::move(socket))
    {
    }

    int poll_fd() const override { return socket_.fd(); }
    Result<std::size_t> receive(std::size_t max, const std::function<void(FramePtr)>& take) override
    {
        if (!up_) return std::size_t{0};
        return socket_.receive(max, take);
    }
    Result<SendResult> send(ByteView frame) override
    {
        if (!up_) return SendResult::dropped;
        return socket_.send(frame);
    }
    PortStats stats() const override { return socket_.stats(); }
    std::string name() const override { return "packet:" + interface_; }
    Result<void> set_up(bool up) override
    {
        if (up == up_) return {};
        if (auto r = socket_.listen(up); !r) return r.error();
        up_ = up;
        return {};
    }
    bool carrier() const override { return socket_.carrier(); }
    std::string host_interface() const override { return interface_; }

private:
    std::string interface_;
    PacketSocket socket_;
    bool up_ = false;
};

}  // namespace

Result<std::unique_ptr<WirePort>> make_packet_wire(const std::string& interface, const MacList& macs)
{
    auto socket = PacketSocket::open(interface, PacketSocket::Transmit::queue);
    if (!socket) return socket.error();
    if (auto r = socket->set_promiscuous(); !r) return r.error();
    if (auto r = socket->filter(macs); !r) return r.error();
    return std::unique_ptr<WirePort>(std::make_unique<PacketWire>(interface, std::move(*socket)));
}

Result<std::unique_ptr<WirePort>> make_wire(const std::string& spec, const MacList& macs)
{
    const auto context = [&spec](Error error) { return with_context("wire " + spec, std::move(error)); };
    if (spec.starts_with("packet:")) {
        auto wire = make_packet_wire(spec.substr(7), macs);
        if (!wire) return context(wire.error());
        return wire;
    }
    if (spec.starts_with("tap:")) {
        const std::size_t at = spec.find('@');
        const std::string name = spec.substr(4, at == std::string::npos ? at : at - 4);
        auto wire = make_tap_wire(name, at == std::string::npos ? "" : spec.substr(at + 1));
        if (!wire) return context(wire.error());
        return wire;
    }
    return make_error(Errc::invalid, "wire '" + spec + "': expected packet:INTERFACE or tap:NAME[@BRIDGE]");
}

}  // namespace colo::proxy
