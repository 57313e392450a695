// SPDX-License-Identifier: Apache-2.0
#pragma once

// The wire format: frames on the control, page and proxy channels, and the payload of every control message.
// docs/protocol.md has the byte layout; this header has the functions. The heartbeat datagram is in beat.h, the content
// of a PageChunk in chunk.h.
//
// Errors: everything a peer can cause is Errc::corrupt (checksum, structure) or Errc::limit (a length beyond its bound),
// with a text that names the field. After an error a connection is of no further use. Whether a session or an epoch is
// the current one is the caller's business: decoding does not know.
//
// Threads: none of the classes is thread-safe; each belongs to one direction of one connection.

#include "core/error.h"
#include "core/types.h"
#include "replication/message.h"

#include <array>
#include <functional>
#include <optional>

namespace colo::replication {

inline constexpr std::uint16_t kProtocolMin = 1;   // oldest and newest protocol version this build speaks
inline constexpr std::uint16_t kProtocolMax = 1;
inline constexpr std::uint32_t kFrameMagic = 0x4f4c4f43;   // "COLO" in byte order of the wire
inline constexpr std::size_t kFrameHeaderSize = 40;

enum class ChannelKind : std::uint8_t { control = 1, page, proxy };
const char* to_string(ChannelKind kind);

// 1..16 are the alternatives of Message, in its order.
enum class FrameType : std::uint8_t {
    hello = 1, hello_ack, refuse, begin, cut, end, abort, abort_ok, staged, applied, resign, resign_request, handover,
    abdicate, close, trigger_request,
    channel_hello = 32,   // any channel, the first frame of every connection
    page_chunk = 33,      // page channels
    input = 48, output, journalled,   // proxy channel
};
const char* to_string(FrameType type);
FrameType type_of(const Message& message);

// Bounds of what a peer may send. Checked before allocation.
inline constexpr std::size_t kMaxText = 1024;              // causes and reasons; longer ones are cut when sent
inline constexpr std::size_t kMaxIdentity = 4096;          // each string of a GuestDescription
inline constexpr std::size_t kMaxRegions = 4096;
inline constexpr std::size_t kMaxSpecialFrames = 4096;
inline constexpr std::size_t kMaxNics = 16;
inline constexpr std::size_t kMaxDisks = 64;
inline constexpr std::size_t kMaxPageChannels = 255;
inline constexpr std::size_t kMaxReleased = 1u << 20;
inline constexpr std::size_t kMaxDeviceState = 64u << 20;
inline constexpr std::size_t kMaxCpuContext = 16u << 20;
inline constexpr std::size_t kMaxGuestFrame = 10 + 14 + 4 + 65535;   // vnet header, Ethernet with VLAN, GSO payload
inline constexpr Gfn kMaxGfn = Gfn{1} << 36;               // 256 TiB; bounds every region

// Largest payload of a frame of this type; 0 for a type that does not exist.
std::size_t max_payload(FrameType type);

struct FrameHeader {
    std::uint16_t version = kProtocolMin;
    ChannelKind channel = ChannelKind::control;
    FrameType type = FrameType::hello;
    SessionId session = 0;
    Epoch epoch = 0;
    std::uint64_t sequence = 0;   // per direction of one connection: 0, 1, 2, ...; ChannelHello is 0 and does not count
    std::uint32_t length = 0;     // of the payload
    bool operator==(const FrameHeader&) const = default;
};

// `payload` points into the decoder and is valid until its next call.
struct Frame {
    FrameHeader header;
    ByteView payload;
};

// ---- control messages -------------------------------------------------------------------------------------------------

Bytes encode(const Message& message);   // payload only
Result<Message> decode(FrameType type, ByteView payload);
// decode() plus: the frame's epoch is the message's epoch, and its session that of a Hello or HelloAck inside.
Result<Message> decode_message(const Frame& frame);

// ---- other payloads ---------------------------------------------------------------------------------------------------

// First frame of every connection; session and kind are those of its header.
struct ChannelHello {
    SessionId session = 0;
    ChannelKind kind = ChannelKind::control;
    std::uint8_t index = 0;   // which page channel, else 0
    bool operator==(const ChannelHello&) const = default;
};
Result<ChannelHello> decode_channel_hello(const Frame& frame);

// `bytes`: vnet header and Ethernet frame; points into Frame::payload.
struct ProxyInput { std::uint8_t nic = 0; Epoch epoch = 0; std::uint64_t number = 0; ByteView bytes; };
struct ProxyOutput { std::uint8_t nic = 0; Epoch epoch = 0; ByteView bytes; };
struct ProxyJournalled { Epoch epoch = 0; std::uint64_t number = 0; };
Result<ProxyInput> decode_input(const Frame& frame);
Result<ProxyOutput> decode_output(const Frame& frame);
Result<ProxyJournalled> decode_journalled(const Frame& frame);

// ---- framing ----------------------------------------------------------------------------------------------------------

// Sending direction of one connection: numbers the frames. Every append_* adds one whole frame to `out`; the *_prefix
// functions return what has to be written *before* bytes that the caller already has (writev, no copy).
class FrameWriter {
public:
    FrameWriter(ChannelKind channel, SessionId session, std::uint16_t version = kProtocolMin);

    void set_version(std::uint16_t version) { version_ = version; }   // once negotiated
    void set_session(SessionId session) { session_ = session; }
    SessionId session() const { return session_; }
    std::uint64_t next_sequence() const { return sequence_; }

    void append_channel_hello(Bytes& out, std::uint8_t index);
    // Errc::limit, and nothing appended, if the message is too large for its type.
    Result<void> append_message(Bytes& out, const Message& message);
    void append_chunk(Bytes& out, Epoch epoch, ByteView chunk);
    void append_input(Bytes& out, std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame);
    void append_output(Bytes& out, std::uint8_t nic, Epoch epoch, ByteView frame);
    void append_journalled(Bytes& out, Epoch epoch, std::uint64_t number);

    using Header = std::array<std::uint8_t, kFrameHeaderSize>;
    using InputPrefix = std::array<std::uint8_t, kFrameHeaderSize + 9>;
    using OutputPrefix = std::array<std::uint8_t, kFrameHeaderSize + 1>;
    Header chunk_prefix(Epoch epoch, ByteView chunk);
    InputPrefix input_prefix(std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame);
    OutputPrefix output_prefix(std::uint8_t nic, Epoch epoch, ByteView frame);

private:
    // Header for a payload of two consecutive pieces; takes the next sequence number.
    void put_header(std::uint8_t* to, FrameType type, Epoch epoch, ByteView first, ByteView second);
    ChannelKind channel_;
    SessionId session_;
    std::uint16_t version_;
    std::uint64_t sequence_ = 0;
};

// Receiving direction of one connection: bytes in, in arbitrary pieces; frames out. Checks magic, version, channel, type,
// length (before it allocates), sequence and CRC. Memory grows with the bytes that really arrived, never with a length
// that a header merely claims.
class FrameDecoder {
public:
    // Without a channel, any is accepted until expect() (an acceptor learns it from ChannelHello).
    explicit FrameDecoder(std::optional<ChannelKind> channel = std::nullopt) : channel_(channel) {}
    void expect(ChannelKind channel) { channel_ = channel; }
    // From now on only frames of this protocol version (the negotiated one).
    void expect_version(std::uint16_t version) { version_min_ = version_max_ = version; }

    // Room to read a socket into (never empty), then how much was read. Call next() until it is empty after each commit.
    std::span<std::uint8_t> prepare();
    void commit(std::size_t bytes);
    void push(ByteView bytes);   // the same with a copy

    // The next whole frame, or nothing yet. An error stays.
    Result<std::optional<Frame>> next();

    std::size_t buffered() const { return end_ - begin_; }   // 0: the stream may end here without a cut frame

private:
    Result<FrameHeader> check_header(const std::uint8_t* at) const;
    void make_room(std::size_t bytes);
    Error fail(Errc code, std::string text);

    std::optional<ChannelKind> channel_;
    std::uint16_t version_min_ = kProtocolMin, version_max_ = kProtocolMax;
    std::uint64_t sequence_ = 0;
    Bytes buffer_;
    std::size_t begin_ = 0, end_ = 0;
    std::optional<Error> error_;
};

}  // namespace colo::replication
