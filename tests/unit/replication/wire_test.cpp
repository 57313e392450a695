// SPDX-License-Identifier: Apache-2.0
#include "replication/wire.h"

#include "replication/byte_io.h"
#include "replication/chunk.h"
#include "samples.h"

#include <gtest/gtest.h>

#include <random>

namespace colo::replication::test {
namespace {

// ---- messages ---------------------------------------------------------------------------------------------------------

void expect_equal(const GuestDescription& a, const GuestDescription& b)
{
    EXPECT_EQ(a.kind, b.kind);
    EXPECT_EQ(a.accelerator, b.accelerator);
    EXPECT_EQ(a.machine, b.machine);
    EXPECT_EQ(a.cpu_policy, b.cpu_policy);
    EXPECT_EQ(a.device_model, b.device_model);
    EXPECT_EQ(a.device_list, b.device_list);
    EXPECT_EQ(a.boot_digest, b.boot_digest);
    EXPECT_EQ(a.vcpus, b.vcpus);
    EXPECT_EQ(a.tsc_khz, b.tsc_khz);
    EXPECT_EQ(a.regions, b.regions);
    EXPECT_EQ(a.special_frames, b.special_frames);
    EXPECT_EQ(a.nics, b.nics);
}

TEST(WireMessage, EveryAlternativeSurvivesARoundTrip)
{
    const auto messages = sample_messages();
    ASSERT_EQ(messages.size(), std::variant_size_v<Message>);
    for (std::size_t i = 0; i < messages.size(); ++i) {
        SCOPED_TRACE(name_of(messages[i]));
        ASSERT_EQ(messages[i].index(), i);
        const Bytes payload = encode(messages[i]);
        ASSERT_LE(payload.size(), max_payload(type_of(messages[i])));
        const auto back = decode(type_of(messages[i]), payload);
        ASSERT_TRUE(back) << back.error().text;
        EXPECT_EQ(back->index(), i);
        EXPECT_EQ(epoch_of(*back), epoch_of(messages[i]));
        EXPECT_EQ(encode(*back), payload);   // with the field checks below: nothing is lost and nothing is swapped
    }
}

TEST(WireMessage, HelloFields)
{
    const Hello sent = sample_hello();
    const auto back = decode(FrameType::hello, encode(sent));
    const Hello& m = std::get<Hello>(*back);
    EXPECT_EQ(m.version_min, 1);
    EXPECT_EQ(m.version_max, 3);
    EXPECT_EQ(m.domain_uuid, sent.domain_uuid);
    EXPECT_EQ(m.domain_name, "web-1");
    EXPECT_EQ(m.session, sent.session);
    EXPECT_EQ(m.generation, 7u);
    expect_equal(m.guest, sent.guest);
    EXPECT_EQ(m.beat_interval_us, 10'000u);
    EXPECT_EQ(m.beat_loss_us, 100'000u);
    EXPECT_EQ(m.lease_us, 90'000u);
    EXPECT_EQ(m.arbiter, sent.arbiter);
    EXPECT_EQ(m.page_channels, 4);
    EXPECT_EQ(m.memory_needed, sent.memory_needed);
}

TEST(WireMessage, EndFields)
{
    const End sent = sample_end();
    const auto back = decode(FrameType::end, encode(sent));
    const End& m = std::get<End>(*back);
    EXPECT_EQ(m.epoch, 12u);
    EXPECT_EQ(m.manifest.base, 10u);
    EXPECT_EQ(m.manifest.mode, Mode::buffered);
    EXPECT_EQ(m.manifest.chunks_per_channel, sent.manifest.chunks_per_channel);
    EXPECT_EQ(m.manifest.pages, 900u);
    EXPECT_EQ(m.manifest.digest, sent.manifest.digest);
    EXPECT_EQ(m.manifest.released, sent.manifest.released);
    EXPECT_EQ(m.manifest.state.devices, sent.manifest.state.devices);
    EXPECT_EQ(m.manifest.state.cpu_context, sent.manifest.state.cpu_context);
    EXPECT_EQ(m.manifest.proxy, sent.manifest.proxy);
    ASSERT_EQ(m.manifest.disks.size(), 1u);
    EXPECT_EQ(m.manifest.disks[0].id, "disk0");
    EXPECT_EQ(m.manifest.disks[0].last_write, 99u);
    EXPECT_EQ(m.manifest.power, PowerState::powered_off);
}

TEST(WireMessage, EveryTruncationAndATrailingByteAreRefused)
{
    for (const Message& message : sample_messages()) {
        SCOPED_TRACE(name_of(message));
        Bytes payload = encode(message);
        for (std::size_t n = 0; n < payload.size(); ++n) {
            const auto cut = decode(type_of(message), ByteView(payload).first(n));
            ASSERT_FALSE(cut) << n << " bytes";
            EXPECT_EQ(cut.error().code, Errc::corrupt);
        }
        payload.push_back(0);
        EXPECT_FALSE(decode(type_of(message), payload));
    }
}

TEST(WireMessage, CountsAreBoundedBeforeAllocation)
{
    Bytes payload;
    ByteWriter out(payload);
    out.u64(12);           // epoch
    out.u64(10);           // base
    out.u8(1);             // mode
    out.u32(0xffffffff);   // chunk counts
    const auto huge = decode(FrameType::end, payload);
    ASSERT_FALSE(huge);
    EXPECT_NE(huge.error().text.find("chunk counts"), std::string::npos) << huge.error().text;
}

template <class Change>
void expect_refused(const char* field, Change&& change)
{
    Hello m = sample_hello();
    change(m);
    const auto back = decode(FrameType::hello, encode(m));
    ASSERT_FALSE(back) << field;
    EXPECT_NE(back.error().text.find(field), std::string::npos) << back.error().text;
}

TEST(WireMessage, HelloBounds)
{
    expect_refused("session", [](Hello& m) { m.session = 0; });
    expect_refused("version-min", [](Hello& m) { m.version_min = 4; });
    expect_refused("version-min", [](Hello& m) { m.version_min = 0; });
    expect_refused("domain uuid", [](Hello& m) { m.domain_uuid = "x"; });
    expect_refused("domain uuid", [](Hello& m) { m.domain_uuid += "x"; });
    expect_refused("page channels", [](Hello& m) { m.page_channels = 0; });
    expect_refused("guest description", [](Hello& m) { m.guest.machine = std::string(kMaxIdentity + 1, 'x'); });
    expect_refused("regions", [](Hello& m) { m.guest.regions.resize(kMaxRegions + 1); });
    expect_refused("region", [](Hello& m) { m.guest.regions[0] = {1, ~std::uint64_t{0}}; });
    expect_refused("special frame", [](Hello& m) { m.guest.special_frames = {kMaxGfn}; });
    expect_refused("nics", [](Hello& m) { m.guest.nics.resize(kMaxNics + 1); });
}

TEST(WireMessage, EpochRules)
{
    EXPECT_FALSE(decode(FrameType::begin, encode(Begin{5, 5, Mode::lock_step})));   // based on itself
    EXPECT_FALSE(decode(FrameType::begin, encode(Begin{0, 0, Mode::lock_step})));
    EXPECT_FALSE(decode(FrameType::staged, encode(Staged{0})));
    EXPECT_TRUE(decode(FrameType::begin, encode(Begin{1, 0, Mode::lock_step})));
}

TEST(WireMessage, UnknownEnumValuesAreRefused)
{
    Bytes begin = encode(Begin{5, 4, Mode::lock_step});
    EXPECT_TRUE(decode(FrameType::begin, encode(Begin{5, 4, Mode::migration})));
    for (const int bad : {0, 4, 255}) {
        begin.back() = static_cast<std::uint8_t>(bad);
        EXPECT_FALSE(decode(FrameType::begin, begin)) << bad;
    }
    EXPECT_FALSE(decode(static_cast<FrameType>(0), {}));
    EXPECT_FALSE(decode(FrameType::page_chunk, {}));
    EXPECT_FALSE(decode(static_cast<FrameType>(200), {}));
}

TEST(WireMessage, LongTextsAreCutWhenSent)
{
    const auto back = decode(FrameType::refuse, encode(Refuse{std::string(5000, 'x')}));
    ASSERT_TRUE(back);
    EXPECT_EQ(std::get<Refuse>(*back).reason.size(), kMaxText);
}

// ---- frames -----------------------------------------------------------------------------------------------------------

std::vector<Frame> decode_all(FrameDecoder& decoder, std::vector<Bytes>& payloads)
{
    std::vector<Frame> frames;
    for (;;) {
        const auto next = decoder.next();
        if (!next || !*next) return frames;
        payloads.emplace_back((*next)->payload.begin(), (*next)->payload.end());
        frames.push_back({(*next)->header, {}});
    }
}

Bytes control_stream(FrameWriter& writer)
{
    Bytes stream;
    writer.append_channel_hello(stream, 0);
    for (const Message& m : sample_messages()) EXPECT_TRUE(writer.append_message(stream, m));
    return stream;
}

TEST(WireFrame, ABackedUpChannelIsNotCopiedForEachFrame)
{
    FrameWriter writer(ChannelKind::proxy, 7);
    const Bytes frame(1500, 1);
    Bytes out;
    int moved = 0;
    for (std::uint64_t number = 1; number <= 4000; ++number) {
        const std::size_t capacity = out.capacity();
        writer.append_input(out, 0, 1, number, frame);
        if (out.capacity() != capacity) ++moved;
    }
    EXPECT_LT(moved, 64);
}

TEST(WireFrame, ArbitraryPiecesGiveTheSameFrames)
{
    FrameWriter writer(ChannelKind::control, 42);
    const Bytes stream = control_stream(writer);
    std::mt19937 random(1);
    for (int run = 0; run < 50; ++run) {
        FrameDecoder decoder(ChannelKind::control);
        std::vector<Bytes> payloads;
        std::vector<Frame> frames;
        for (std::size_t at = 0; at < stream.size();) {
            const std::size_t n = std::min<std::size_t>(1 + random() % (run == 0 ? 1 : 700), stream.size() - at);
            if (run % 2 == 0) {
                decoder.push(ByteView(stream).subspan(at, n));
            } else {
                const auto room = decoder.prepare();
                ASSERT_GE(room.size(), n);
                std::copy_n(stream.begin() + static_cast<std::ptrdiff_t>(at), n, room.begin());
                decoder.commit(n);
            }
            at += n;
            for (const Frame& f : decode_all(decoder, payloads)) frames.push_back(f);
        }
        EXPECT_EQ(decoder.buffered(), 0u);
        ASSERT_EQ(frames.size(), sample_messages().size() + 1);
        for (std::size_t i = 0; i < frames.size(); ++i) {
            EXPECT_EQ(frames[i].header.sequence, i == 0 ? 0 : i - 1);   // the greeting does not count
            EXPECT_EQ(frames[i].header.session, 42u);
            EXPECT_EQ(frames[i].header.length, payloads[i].size());
            if (i > 0) {
                EXPECT_EQ(payloads[i], encode(sample_messages()[i - 1]));
                EXPECT_EQ(frames[i].header.epoch, epoch_of(sample_messages()[i - 1]));
            }
        }
    }
}

TEST(WireFrame, EveryFlippedBitIsRefused)
{
    FrameWriter writer(ChannelKind::control, 42);
    Bytes stream;
    ASSERT_TRUE(writer.append_message(stream, Begin{5, 4, Mode::lock_step}));
    for (std::size_t bit = 0; bit < stream.size() * 8; ++bit) {
        Bytes flipped = stream;
        flipped[bit / 8] ^= static_cast<std::uint8_t>(1 << (bit % 8));
        FrameDecoder decoder(ChannelKind::control);
        decoder.push(flipped);
        const auto next = decoder.next();
        EXPECT_TRUE(!next || !*next) << "bit " << bit;   // refused, or longer than what arrived
        if (!next) {
            EXPECT_FALSE(decoder.next());   // and it stays so
        }
    }
}

Errc error_of(const Bytes& stream, std::optional<ChannelKind> channel = ChannelKind::control)
{
    FrameDecoder decoder(channel);
    decoder.push(stream);
    for (;;) {
        const auto next = decoder.next();
        if (!next) return next.error().code;
        if (!*next) return Errc::cancelled;
    }
}

TEST(WireFrame, Inv05_SequenceGapsAndRepetitionsAreRefused)
{
    FrameWriter writer(ChannelKind::control, 42);
    Bytes first, second, third;
    ASSERT_TRUE(writer.append_message(first, Staged{1}));
    ASSERT_TRUE(writer.append_message(second, Staged{2}));
    ASSERT_TRUE(writer.append_message(third, Staged{3}));
    const auto join = [](std::initializer_list<const Bytes*> parts) {
        Bytes all;
        for (const Bytes* p : parts) all.insert(all.end(), p->begin(), p->end());
        return all;
    };
    EXPECT_EQ(error_of(join({&first, &second, &third})), Errc::cancelled);   // no error
    EXPECT_EQ(error_of(join({&first, &third})), Errc::corrupt);
    EXPECT_EQ(error_of(join({&first, &first})), Errc::corrupt);
    EXPECT_EQ(error_of(join({&second, &first})), Errc::corrupt);
}

TEST(WireFrame, AChannelHelloOnlyComesFirst)
{
    FrameWriter writer(ChannelKind::control, 42);
    Bytes stream;
    ASSERT_TRUE(writer.append_message(stream, Staged{1}));
    EXPECT_EQ(error_of(stream), Errc::cancelled);
    writer.append_channel_hello(stream, 0);
    EXPECT_EQ(error_of(stream), Errc::corrupt);
}

TEST(WireFrame, AClaimedLengthIsBoundedAndAllocatesNothing)
{
    FrameWriter writer(ChannelKind::control, 42);
    Bytes stream;
    ASSERT_TRUE(writer.append_message(stream, Staged{1}));
    store_le(stream.data() + 8, std::uint32_t{0xffffffff});
    EXPECT_EQ(error_of(stream), Errc::limit);

    // An End may be large, but one that only claims to be takes no memory.
    Bytes end;
    ASSERT_TRUE(writer.append_message(end, sample_end()));
    FrameWriter fresh(ChannelKind::control, 42);
    end.clear();
    ASSERT_TRUE(fresh.append_message(end, sample_end()));
    store_le(end.data() + 8, static_cast<std::uint32_t>(max_payload(FrameType::end)));
    FrameDecoder decoder(ChannelKind::control);
    decoder.push(end);
    ASSERT_TRUE(decoder.next());
    EXPECT_LE(decoder.prepare().size(), 256u << 10);
}

TEST(WireFrame, FramesBelongToTheirChannel)
{
    Bytes control;
    ASSERT_TRUE(FrameWriter(ChannelKind::control, 42).append_message(control, Staged{1}));
    EXPECT_EQ(error_of(control, ChannelKind::page), Errc::corrupt);
    EXPECT_EQ(error_of(control, std::nullopt), Errc::cancelled);
    Bytes output;
    FrameWriter(ChannelKind::proxy, 42).append_output(output, 0, 1, Bytes(60, 1));
    EXPECT_EQ(error_of(output, ChannelKind::control), Errc::corrupt);
    EXPECT_EQ(error_of(output, ChannelKind::proxy), Errc::cancelled);
}

TEST(WireFrame, Inv32_VersionsAreChecked)
{
    FrameWriter writer(ChannelKind::control, 42, 2);
    Bytes stream;
    ASSERT_TRUE(writer.append_message(stream, sample_hello()));   // greetings keep version 1 for ever
    EXPECT_EQ(error_of(stream), Errc::cancelled);
    ASSERT_TRUE(writer.append_message(stream, Staged{1}));
    EXPECT_EQ(error_of(stream), Errc::corrupt);
    FrameDecoder agreed(ChannelKind::control);
    agreed.expect_version(2);
    agreed.push(stream);
    ASSERT_TRUE(agreed.next());
    const auto second = agreed.next();
    ASSERT_TRUE(second && *second);
    EXPECT_EQ((*second)->header.version, 2);
}

TEST(WireFrame, TheHeaderMustAgreeWithTheMessage)
{
    const Bytes payload = encode(Staged{7});
    Frame frame{{1, ChannelKind::control, FrameType::staged, 42, 7, 0, 8}, payload};
    EXPECT_TRUE(decode_message(frame));
    frame.header.epoch = 8;
    EXPECT_FALSE(decode_message(frame));
    const Bytes hello = encode(sample_hello());
    Frame greeting{{1, ChannelKind::control, FrameType::hello, sample_hello().session, 0, 0, 0}, hello};
    EXPECT_TRUE(decode_message(greeting));
    greeting.header.session = 1;
    EXPECT_FALSE(decode_message(greeting));
}

TEST(WireFrame, AMessageTooLargeIsNotSent)
{
    End end = sample_end();
    end.manifest.state.devices.resize(100u << 20);
    FrameWriter writer(ChannelKind::control, 42);
    Bytes stream;
    const auto sent = writer.append_message(stream, end);
    ASSERT_FALSE(sent);
    EXPECT_EQ(sent.error().code, Errc::limit);
    EXPECT_TRUE(stream.empty());
    EXPECT_EQ(writer.next_sequence(), 0u);
}

// ---- channel hello and proxy frames -----------------------------------------------------------------------------------

Result<std::optional<Frame>> only_frame(FrameDecoder& decoder, const Bytes& stream)
{
    decoder.push(stream);
    return decoder.next();
}

TEST(WireChannelHello, NamesSessionKindAndIndex)
{
    Bytes stream;
    FrameWriter(ChannelKind::page, 42).append_channel_hello(stream, 3);
    FrameDecoder decoder;
    const auto frame = only_frame(decoder, stream);
    ASSERT_TRUE(frame && *frame);
    const auto hello = decode_channel_hello(**frame);
    ASSERT_TRUE(hello);
    EXPECT_EQ(*hello, (ChannelHello{42, ChannelKind::page, 3}));

    Frame bad = **frame;
    bad.header.session = 0;
    EXPECT_FALSE(decode_channel_hello(bad));
    bad = **frame;
    bad.header.channel = ChannelKind::proxy;   // there is only one
    EXPECT_FALSE(decode_channel_hello(bad));
    bad.header.type = FrameType::staged;
    EXPECT_FALSE(decode_channel_hello(bad));
}

TEST(WireProxy, PrefixAndFrameAreWhatAppendWrites)
{
    const Bytes packet(1514, 0x5a);
    FrameWriter whole(ChannelKind::proxy, 42), pieces(ChannelKind::proxy, 42);
    Bytes a, b;
    whole.append_input(a, 2, 9, 1000, packet);
    const auto input = pieces.input_prefix(2, 9, 1000, packet);
    b.insert(b.end(), input.begin(), input.end());
    b.insert(b.end(), packet.begin(), packet.end());
    whole.append_output(a, 1, 8, packet);
    const auto output = pieces.output_prefix(1, 8, packet);
    b.insert(b.end(), output.begin(), output.end());
    b.insert(b.end(), packet.begin(), packet.end());
    EXPECT_EQ(a, b);

    FrameDecoder decoder(ChannelKind::proxy);
    decoder.push(a);
    const auto first = decoder.next();
    ASSERT_TRUE(first && *first);
    const auto in = decode_input(**first);
    ASSERT_TRUE(in);
    EXPECT_EQ(in->nic, 2);
    EXPECT_EQ(in->epoch, 9u);
    EXPECT_EQ(in->number, 1000u);
    EXPECT_TRUE(std::equal(in->bytes.begin(), in->bytes.end(), packet.begin(), packet.end()));
    EXPECT_FALSE(decode_output(**first));
    const auto second = decoder.next();
    ASSERT_TRUE(second && *second);
    const auto out = decode_output(**second);
    ASSERT_TRUE(out);
    EXPECT_EQ(out->nic, 1);
    EXPECT_EQ(out->epoch, 8u);
    EXPECT_EQ(out->bytes.size(), packet.size());
}

TEST(WireProxy, Journalled)
{
    Bytes stream;
    FrameWriter(ChannelKind::proxy, 42).append_journalled(stream, 9, 1234);
    FrameDecoder decoder(ChannelKind::proxy);
    const auto frame = only_frame(decoder, stream);
    ASSERT_TRUE(frame && *frame);
    const auto journalled = decode_journalled(**frame);
    ASSERT_TRUE(journalled);
    EXPECT_EQ(journalled->epoch, 9u);
    EXPECT_EQ(journalled->number, 1234u);
}

TEST(WireProxy, LargestFramePassesAndEmptyOnesDoNot)
{
    Bytes stream;
    FrameWriter writer(ChannelKind::proxy, 42);
    writer.append_output(stream, 0, 1, Bytes(kMaxGuestFrame, 7));
    FrameDecoder decoder(ChannelKind::proxy);
    const auto frame = only_frame(decoder, stream);
    ASSERT_TRUE(frame && *frame);
    EXPECT_TRUE(decode_output(**frame));

    const Bytes nic_only{0};
    EXPECT_FALSE(decode_output({{1, ChannelKind::proxy, FrameType::output, 42, 1, 0, 1}, nic_only}));
    const Bytes bad_nic{200, 1, 2, 3};
    EXPECT_FALSE(decode_output({{1, ChannelKind::proxy, FrameType::output, 42, 1, 0, 4}, bad_nic}));
}

TEST(WireTypes, EveryTypeHasANameAndABound)
{
    int known = 0;
    for (int t = 0; t < 256; ++t) {
        const auto type = static_cast<FrameType>(t);
        const bool named = std::string(to_string(type)) != "unknown";
        EXPECT_EQ(named, max_payload(type) != 0) << t;
        known += named;
    }
    EXPECT_EQ(known, 21);
    EXPECT_GE(max_payload(FrameType::end), kMaxDeviceState + kMaxCpuContext + 8 * kMaxReleased + 34 * kMaxFlows + (1u << 16));
}

}  // namespace
}  // namespace colo::replication::test
