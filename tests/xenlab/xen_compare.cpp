// SPDX-License-Identifier: Apache-2.0
// xen_compare ONE OTHER: are these two domains, both paused, the same? Compares every frame that is not this host's own, and says
// which differ. Status 0: all are equal, 1: some differ, 2: it could not be found out. Run in dom0 by `scripts/xenlab test protect`.
// xen_compare ONE: a line for every such frame, "gfn checksum", to be compared with what another host says of its own.

#include "core/crc32c.h"
#include "xen/guest_memory.h"
#include "xen/memory_layout.h"
#include "xen/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace colo::xen {
namespace {

using replication::FrameStatus;

constexpr std::size_t kBatch = 512;
constexpr int kNamed = 16;

struct Side {
    std::unique_ptr<Control> control;
    MemoryLayout layout;
    std::unique_ptr<DomainMemory> memory;
};

Result<Side> open_side(const std::string& name)
{
    auto store = open_store();
    if (!store) return store.error();
    const auto domain = find_domain(**store, name);
    if (!domain) return domain.error();
    Side side;
    auto control = open_domain(*domain);
    if (!control) return control.error();
    side.control = std::move(*control);
    const auto info = side.control->info();
    if (!info) return info.error();
    if (!info->paused) return make_error(Errc::invalid, name + " is not paused");
    auto layout = probe_layout(*side.control);
    if (!layout) return layout.error();
    side.layout = std::move(*layout);
    side.memory = std::make_unique<DomainMemory>(*side.control, side.layout);
    return side;
}

// How many frames differ.
Result<std::uint64_t> compare(Side& one, Side& other, const std::vector<Gfn>& gfns)
{
    std::array<Bytes, 2> pages{Bytes(kBatch * kPageSize), Bytes(kBatch * kPageSize)};
    std::array<std::array<FrameStatus, kBatch>, 2> status;
    std::uint64_t differ = 0;
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        if (auto r = one.memory->read(part, pages[0].data(), std::span(status[0]).first(part.size())); !r) return r.error();
        if (auto r = other.memory->read(part, pages[1].data(), std::span(status[1]).first(part.size())); !r) return r.error();
        for (std::size_t i = 0; i < part.size(); ++i) {
            const bool same = status[0][i] == status[1][i] && status[0][i] != FrameStatus::failed &&
                              (status[0][i] == FrameStatus::absent || std::memcmp(&pages[0][i * kPageSize], &pages[1][i * kPageSize], kPageSize) == 0);
            if (!same && ++differ <= kNamed) std::printf("frame %#llx differs\n", static_cast<unsigned long long>(part[i]));
        }
    }
    return differ;
}

Result<void> print(Side& side)
{
    Bytes pages(kBatch * kPageSize);
    std::array<FrameStatus, kBatch> status;
    const auto gfns = side.layout.ram().to_vector();
    for (std::size_t at = 0; at < gfns.size(); at += kBatch) {
        const auto part = std::span(gfns).subspan(at, std::min(kBatch, gfns.size() - at));
        if (auto r = side.memory->read(part, pages.data(), std::span(status).first(part.size())); !r) return r.error();
        for (std::size_t i = 0; i < part.size(); ++i) {
            if (status[i] == FrameStatus::failed) return make_error(Errc::failed, fmt::format("frame {:#x} cannot be read", part[i]));
            if (status[i] == FrameStatus::absent) std::printf("%llx absent\n", static_cast<unsigned long long>(part[i]));
            else std::printf("%llx %08x\n", static_cast<unsigned long long>(part[i]), crc32c({&pages[i * kPageSize], kPageSize}));
        }
    }
    return {};
}

int run_print(const std::string& name)
{
    auto side = open_side(name);
    const auto printed = side ? print(*side) : Result<void>(side.error());
    if (printed) return 0;
    std::fprintf(stderr, "%s\n", printed.error().text.c_str());
    return 2;
}

int run(const std::string& one_name, const std::string& other_name)
{
    auto one = open_side(one_name);
    auto other = one ? open_side(other_name) : Result<Side>(one.error());
    if (!other) {
        std::printf("%s\n", other.error().text.c_str());
        return 2;
    }
    if (!(one->layout == other->layout)) {
        std::printf("the memory maps differ\n");
        return 1;
    }
    const auto gfns = one->layout.ram().to_vector();
    const auto differ = compare(*one, *other, gfns);
    if (!differ) {
        std::printf("%s\n", differ.error().text.c_str());
        return 2;
    }
    std::printf("%llu of %zu frames differ\n", static_cast<unsigned long long>(*differ), gfns.size());
    return *differ == 0 ? 0 : 1;
}

}  // namespace
}  // namespace colo::xen

int main(int argc, char** argv)
{
    if (argc == 2) return colo::xen::run_print(argv[1]);
    if (argc != 3) {
        std::fprintf(stderr, "usage: xen_compare ONE [OTHER]\n");
        return 2;
    }
    return colo::xen::run(argv[1], argv[2]);
}
