// SPDX-License-Identifier: Apache-2.0
// wire_corpus DIRECTORY: writes one well-formed input of every kind, for a fuzzer to start from. Run it again, and commit
// the result, when the wire format changes.
#include "core/check.h"
#include "replication/beat.h"
#include "replication/chunk.h"
#include "replication/codec.h"
#include "replication/delta.h"
#include "replication/wire.h"
#include "tests/unit/replication/samples.h"

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace {

using namespace colo;
using namespace colo::replication;

std::filesystem::path g_root;

void write(const std::string& target, const std::string& name, std::uint8_t choice, ByteView input)
{
    std::filesystem::create_directories(g_root / target);
    std::ofstream out(g_root / target / name, std::ios::binary);
    out.put(static_cast<char>(choice));
    for (const std::uint8_t b : input) out.put(static_cast<char>(b));
}

void messages()
{
    FrameWriter writer(ChannelKind::control, test::sample_hello().session);
    Bytes stream;
    writer.append_channel_hello(stream, 0);
    for (const Message& m : test::sample_messages()) {
        write("message", name_of(m), static_cast<std::uint8_t>(type_of(m)), encode(m));
        COLO_CHECK(writer.append_message(stream, m));
    }
    write("frame_stream", "control", 0, stream);
    write("frame_stream", "control-corrected", 1, stream);
}

void proxy_frames()
{
    FrameWriter writer(ChannelKind::proxy, 42);
    Bytes stream;
    writer.append_channel_hello(stream, 0);
    writer.append_input(stream, 0, 3, 1, Bytes(70, 1));
    writer.append_output(stream, 0, 3, Bytes(80, 2));
    writer.append_journalled(stream, 3, 1);
    write("frame_stream", "proxy", 1, stream);
}

void beats()
{
    Beat b;
    b.session = 1;
    b.generation = 2;
    b.role = BeatRole::primary;
    b.number = 3;
    write("beat", "primary", 0, encode(b));
    b.role = BeatRole::secondary;
    b.flags = beat_flag::kAll;
    b.echo_number = 3;
    write("beat", "secondary-corrected", 1, encode(b));
}

Bytes records()
{
    Bytes page(kPageSize, 0), delta(kMaxDeltaBytes), body;
    page[8] = page[4000] = 1;
    delta.resize(encode_delta(zero_page(), page.data(), delta.data()));
    const auto add = [&](Gfn gfn, PageKind kind, ByteView data) {
        const std::size_t at = body.size();
        body.resize(at + kRecordHeaderSize + data.size());
        store_record_header(body.data() + at, gfn, kind, data.size());
        if (!data.empty()) std::memcpy(body.data() + at + kRecordHeaderSize, data.data(), data.size());
    };
    add(1, PageKind::zero, {});
    add(2, PageKind::unchanged, {});
    add(33, PageKind::delta, delta);
    add(40, PageKind::full, page);
    return body;
}

void chunks()
{
    const Bytes body = records();
    for (const Compression method : {Compression::none, Compression::zlib, Compression::zstd}) {
        Bytes packed(body.size() - 1);
        const std::size_t n = Compressor(method, 1).compress(body, packed);
        const ByteView content = method == Compression::none ? ByteView(body) : ByteView(packed).first(n);
        const std::string name = method == Compression::none ? "plain" : method == Compression::zlib ? "zlib" : "zstd";
        for (const std::uint8_t with_base : {std::uint8_t{0}, std::uint8_t{1}}) {
            Bytes chunk(kChunkHeaderSize);
            const Epoch epoch = with_base + Epoch{1};
            store_chunk_header(chunk.data(), {epoch, epoch - 1, 1, 4, static_cast<std::uint32_t>(body.size()), method});
            chunk.insert(chunk.end(), content.begin(), content.end());
            write("chunk", name + (with_base != 0 ? "-based" : "-first"), with_base, chunk);
            if (method != Compression::zstd) continue;
            FrameWriter writer(ChannelKind::page, 42);
            Bytes stream;
            writer.append_channel_hello(stream, 1);
            writer.append_chunk(stream, epoch, chunk);
            write("frame_stream", "page" + std::to_string(epoch), 1, stream);
        }
    }
}

}  // namespace

int main(int argc, char** argv)
{
    if (argc != 2) {
        std::fputs("usage: wire_corpus DIRECTORY\n", stderr);
        return 2;
    }
    g_root = argv[1];
    messages();
    proxy_frames();
    beats();
    chunks();
    return 0;
}
