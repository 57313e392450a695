// SPDX-License-Identifier: Apache-2.0
#include "replication/wire.h"

#include "core/check.h"
#include "core/crc32c.h"
#include "replication/byte_io.h"
#include "replication/chunk.h"

#include <algorithm>

namespace colo::replication {
namespace {

// Offsets of docs/protocol.md, "Frame header".
constexpr std::size_t kMagicAt = 0, kVersionAt = 4, kChannelAt = 6, kTypeAt = 7, kLengthAt = 8, kCrcAt = 12, kSessionAt = 16,
                      kEpochAt = 24, kSequenceAt = 32;
static_assert(kSequenceAt + 8 == kFrameHeaderSize);

// Over the header with its CRC field as zero, then the payload.
std::uint32_t frame_crc(const std::uint8_t* header, ByteView first, ByteView second)
{
    static constexpr std::array<std::uint8_t, 4> kZero{};
    std::uint32_t crc = crc32c({header, kCrcAt}, 0);
    crc = crc32c(kZero, crc);
    crc = crc32c({header + kSessionAt, kFrameHeaderSize - kSessionAt}, crc);
    return crc32c(second, crc32c(first, crc));
}

bool belongs(FrameType type, ChannelKind channel)
{
    if (type == FrameType::channel_hello) return true;
    if (type == FrameType::page_chunk) return channel == ChannelKind::page;
    if (type >= FrameType::input) return channel == ChannelKind::proxy;
    return channel == ChannelKind::control;
}

// Frames by which two versions find out that they do not understand each other keep version 1 for ever.
bool is_greeting(FrameType type)
{
    return type == FrameType::hello || type == FrameType::hello_ack || type == FrameType::refuse ||
           type == FrameType::channel_hello;
}

template <std::size_t N>
void append(Bytes& out, const std::array<std::uint8_t, N>& prefix, ByteView bytes)
{
    out.insert(out.end(), prefix.begin(), prefix.end());
    out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

const char* to_string(ChannelKind kind)
{
    switch (kind) {
    case ChannelKind::control: return "control";
    case ChannelKind::page: return "page";
    case ChannelKind::proxy: return "proxy";
    }
    return "unknown";
}

const char* to_string(FrameType type)
{
    switch (type) {
    case FrameType::hello: return "hello";
    case FrameType::hello_ack: return "hello-ack";
    case FrameType::refuse: return "refuse";
    case FrameType::begin: return "begin";
    case FrameType::cut: return "cut";
    case FrameType::end: return "end";
    case FrameType::abort: return "abort";
    case FrameType::abort_ok: return "abort-ok";
    case FrameType::staged: return "staged";
    case FrameType::applied: return "applied";
    case FrameType::resign: return "resign";
    case FrameType::resign_request: return "resign-request";
    case FrameType::handover: return "handover";
    case FrameType::abdicate: return "abdicate";
    case FrameType::close: return "close";
    case FrameType::trigger_request: return "trigger-request";
    case FrameType::channel_hello: return "channel-hello";
    case FrameType::page_chunk: return "page-chunk";
    case FrameType::input: return "input";
    case FrameType::output: return "output";
    case FrameType::journalled: return "journalled";
    }
    return "unknown";
}

FrameType type_of(const Message& message)
{
    static_assert(std::variant_size_v<Message> == static_cast<std::size_t>(FrameType::trigger_request));
    return static_cast<FrameType>(message.index() + 1);
}

std::size_t max_payload(FrameType type)
{
    switch (type) {
    case FrameType::hello: return 1u << 20;
    case FrameType::hello_ack: return 64;
    case FrameType::begin:
    case FrameType::cut:
    case FrameType::abort:
    case FrameType::abort_ok:
    case FrameType::staged:
    case FrameType::applied:
    case FrameType::resign_request:
    case FrameType::handover:
    case FrameType::trigger_request: return 64;
    case FrameType::refuse:
    case FrameType::resign:
    case FrameType::abdicate:
    case FrameType::close: return kMaxText + 4;
    case FrameType::end: return 96u << 20;
    case FrameType::channel_hello: return 1;
    case FrameType::page_chunk: return kChunkHeaderSize + kMaxChunkRawBytes;
    case FrameType::input: return kMaxGuestFrame + 9;
    case FrameType::output: return kMaxGuestFrame + 1;
    case FrameType::journalled: return 8;
    }
    return 0;
}

// ---- other payloads ---------------------------------------------------------------------------------------------------

Result<ChannelHello> decode_channel_hello(const Frame& frame)
{
    if (frame.header.type != FrameType::channel_hello)
        return make_error(Errc::corrupt, std::string("the first frame of a connection is ") + to_string(frame.header.type));
    ByteReader in(frame.payload, "channel hello");
    ChannelHello hello{frame.header.session, frame.header.channel, in.u8("index")};
    if (hello.session == 0) in.fail("session", "is 0");
    if (hello.kind != ChannelKind::page && hello.index != 0) in.fail("index", "is not 0");
    if (auto r = in.finish(); !r) return r.error();
    return hello;
}

namespace {

Result<ByteView> guest_frame(ByteReader& in)
{
    const ByteView bytes = in.rest();
    if (bytes.empty()) in.fail("frame", "is empty");
    if (bytes.size() > kMaxGuestFrame) in.fail("frame", "is too long");
    if (auto r = in.finish(); !r) return r.error();
    return bytes;
}

Error wrong_type(const Frame& frame, FrameType expected)
{
    return make_error(Errc::corrupt, std::string("frame is ") + to_string(frame.header.type) + ", expected " + to_string(expected));
}

std::uint8_t checked_nic(ByteReader& in)
{
    const std::uint8_t nic = in.u8("nic");
    if (nic >= kMaxNics) in.fail("nic", "is out of range");
    return nic;
}

}  // namespace

Result<ProxyInput> decode_input(const Frame& frame)
{
    if (frame.header.type != FrameType::input) return wrong_type(frame, FrameType::input);
    ByteReader in(frame.payload, "input");
    ProxyInput input;
    input.epoch = frame.header.epoch;
    input.number = in.u64("number");
    input.nic = checked_nic(in);
    auto bytes = guest_frame(in);
    if (!bytes) return bytes.error();
    input.bytes = *bytes;
    return input;
}

Result<ProxyOutput> decode_output(const Frame& frame)
{
    if (frame.header.type != FrameType::output) return wrong_type(frame, FrameType::output);
    ByteReader in(frame.payload, "output");
    ProxyOutput output;
    output.epoch = frame.header.epoch;
    output.nic = checked_nic(in);
    auto bytes = guest_frame(in);
    if (!bytes) return bytes.error();
    output.bytes = *bytes;
    return output;
}

Result<ProxyJournalled> decode_journalled(const Frame& frame)
{
    if (frame.header.type != FrameType::journalled) return wrong_type(frame, FrameType::journalled);
    ByteReader in(frame.payload, "journalled");
    const ProxyJournalled journalled{frame.header.epoch, in.u64("number")};
    if (auto r = in.finish(); !r) return r.error();
    return journalled;
}

// ---- writer -----------------------------------------------------------------------------------------------------------

FrameWriter::FrameWriter(ChannelKind channel, SessionId session, std::uint16_t version)
    : channel_(channel), session_(session), version_(version)
{
}

void FrameWriter::put_header(std::uint8_t* to, FrameType type, Epoch epoch, ByteView first, ByteView second)
{
    const std::size_t length = first.size() + second.size();
    COLO_CHECK(belongs(type, channel_) && length <= max_payload(type));
    store_le(to + kMagicAt, kFrameMagic);
    store_le(to + kVersionAt, is_greeting(type) ? std::uint16_t{1} : version_);
    to[kChannelAt] = static_cast<std::uint8_t>(channel_);
    to[kTypeAt] = static_cast<std::uint8_t>(type);
    store_le(to + kLengthAt, static_cast<std::uint32_t>(length));
    store_le(to + kSessionAt, session_);
    store_le(to + kEpochAt, epoch);
    store_le(to + kSequenceAt, type == FrameType::channel_hello ? std::uint64_t{0} : sequence_++);
    store_le(to + kCrcAt, frame_crc(to, first, second));
}

void FrameWriter::append_channel_hello(Bytes& out, std::uint8_t index)
{
    Header header{};
    put_header(header.data(), FrameType::channel_hello, 0, {&index, 1}, {});
    append(out, header, {&index, 1});
}

Result<void> FrameWriter::append_message(Bytes& out, const Message& message)
{
    const FrameType type = type_of(message);
    const Bytes payload = encode(message);
    if (payload.size() > max_payload(type))
        return make_error(Errc::limit, std::string("message ") + name_of(message) + " of " + std::to_string(payload.size()) +
                                           " bytes, at most " + std::to_string(max_payload(type)));
    Header header{};
    put_header(header.data(), type, epoch_of(message), payload, {});
    append(out, header, payload);
    return {};
}

FrameWriter::Header FrameWriter::chunk_prefix(Epoch epoch, ByteView chunk)
{
    Header header{};
    put_header(header.data(), FrameType::page_chunk, epoch, chunk, {});
    return header;
}

FrameWriter::InputPrefix FrameWriter::input_prefix(std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame)
{
    InputPrefix prefix{};
    store_le(prefix.data() + kFrameHeaderSize, number);
    prefix[kFrameHeaderSize + 8] = nic;
    put_header(prefix.data(), FrameType::input, epoch, ByteView(prefix).subspan(kFrameHeaderSize), frame);
    return prefix;
}

FrameWriter::OutputPrefix FrameWriter::output_prefix(std::uint8_t nic, Epoch epoch, ByteView frame)
{
    OutputPrefix prefix{};
    prefix[kFrameHeaderSize] = nic;
    put_header(prefix.data(), FrameType::output, epoch, ByteView(prefix).subspan(kFrameHeaderSize), frame);
    return prefix;
}

void FrameWriter::append_chunk(Bytes& out, Epoch epoch, ByteView chunk) { append(out, chunk_prefix(epoch, chunk), chunk); }

void FrameWriter::append_input(Bytes& out, std::uint8_t nic, Epoch epoch, std::uint64_t number, ByteView frame)
{
    append(out, input_prefix(nic, epoch, number, frame), frame);
}

void FrameWriter::append_output(Bytes& out, std::uint8_t nic, Epoch epoch, ByteView frame)
{
    append(out, output_prefix(nic, epoch, frame), frame);
}

void FrameWriter::append_journalled(Bytes& out, Epoch epoch, std::uint64_t number)
{
    std::array<std::uint8_t, kFrameHeaderSize + 8> bytes{};
    store_le(bytes.data() + kFrameHeaderSize, number);
    put_header(bytes.data(), FrameType::journalled, epoch, ByteView(bytes).subspan(kFrameHeaderSize), {});
    append(out, bytes, {});
}

// ---- decoder ----------------------------------------------------------------------------------------------------------

namespace {
constexpr std::size_t kReadSize = 64u << 10;
}

void FrameDecoder::make_room(std::size_t bytes)
{
    if (begin_ == end_) begin_ = end_ = 0;
    if (buffer_.size() - end_ >= bytes) return;
    if (begin_ > 0) {
        std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), buffer_.begin() + static_cast<std::ptrdiff_t>(end_),
                  buffer_.begin());
        end_ -= begin_;
        begin_ = 0;
    }
    if (buffer_.size() - end_ < bytes) buffer_.resize(std::max(end_ + bytes, buffer_.size() * 2));
}

std::span<std::uint8_t> FrameDecoder::prepare()
{
    make_room(kReadSize);
    return std::span(buffer_).subspan(end_);
}

void FrameDecoder::commit(std::size_t bytes)
{
    COLO_CHECK(bytes <= buffer_.size() - end_);
    end_ += bytes;
}

void FrameDecoder::push(ByteView bytes)
{
    make_room(bytes.size());
    std::copy(bytes.begin(), bytes.end(), buffer_.begin() + static_cast<std::ptrdiff_t>(end_));
    end_ += bytes.size();
}

Error FrameDecoder::fail(Errc code, std::string text)
{
    error_ = make_error(code, "frame " + std::to_string(sequence_) + ": " + std::move(text));
    return *error_;
}

Result<FrameHeader> FrameDecoder::check_header(const std::uint8_t* at) const
{
    const auto corrupt = [](std::string text) { return make_error(Errc::corrupt, std::move(text)); };
    if (load_le<std::uint32_t>(at + kMagicAt) != kFrameMagic) return corrupt("wrong magic, this is not a replication stream");
    FrameHeader header;
    header.type = static_cast<FrameType>(at[kTypeAt]);
    const std::size_t limit = max_payload(header.type);
    if (limit == 0) return corrupt("unknown type " + std::to_string(at[kTypeAt]));
    header.version = load_le<std::uint16_t>(at + kVersionAt);
    const bool version_ok = is_greeting(header.type) ? header.version == 1
                                                     : header.version >= version_min_ && header.version <= version_max_;
    if (!version_ok) return corrupt("protocol version " + std::to_string(header.version) + " was not agreed on");
    header.channel = static_cast<ChannelKind>(at[kChannelAt]);
    if (at[kChannelAt] < 1 || at[kChannelAt] > static_cast<std::uint8_t>(ChannelKind::proxy))
        return corrupt("unknown channel kind " + std::to_string(at[kChannelAt]));
    if ((channel_ && header.channel != *channel_) || !belongs(header.type, header.channel))
        return corrupt(std::string(to_string(header.type)) + " does not belong on this channel");
    header.length = load_le<std::uint32_t>(at + kLengthAt);
    if (header.length > limit)
        return make_error(Errc::limit, std::string(to_string(header.type)) + " of " + std::to_string(header.length) +
                                           " bytes, at most " + std::to_string(limit));
    header.session = load_le<std::uint64_t>(at + kSessionAt);
    header.epoch = load_le<std::uint64_t>(at + kEpochAt);
    header.sequence = load_le<std::uint64_t>(at + kSequenceAt);
    if (header.sequence != sequence_) return corrupt("sequence number " + std::to_string(header.sequence));
    return header;
}

Result<std::optional<Frame>> FrameDecoder::next()
{
    if (error_) return *error_;
    if (buffered() < kFrameHeaderSize) return std::optional<Frame>{};
    const std::uint8_t* const at = buffer_.data() + begin_;
    auto header = check_header(at);
    if (!header) return fail(header.error().code, header.error().text);
    if (buffered() < kFrameHeaderSize + header->length) return std::optional<Frame>{};
    const ByteView payload(at + kFrameHeaderSize, header->length);
    if (frame_crc(at, payload, {}) != load_le<std::uint32_t>(at + kCrcAt))
        return fail(Errc::corrupt, std::string("wrong checksum (") + to_string(header->type) + ")");
    begin_ += kFrameHeaderSize + header->length;
    if (header->type != FrameType::channel_hello) ++sequence_;
    return std::optional<Frame>(Frame{*header, payload});
}

}  // namespace colo::replication
