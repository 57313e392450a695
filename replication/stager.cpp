// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "core/check.h"
#include "replication/chunk.h"
#include "replication/codec.h"
#include "replication/delta.h"
#include "replication/host_memory.h"
#include "replication/mapping.h"
#include "replication/wire.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace colo::replication {
namespace {

using Slot = std::uint32_t;
constexpr Slot kZero = 0xffffffff;       // all zero, takes no memory
constexpr Slot kOutside = 0xfffffffe;    // shadow: not RAM that we copy
constexpr Slot kUnchanged = 0xfffffffd;  // staged: as in the base
constexpr Slot kNothing = 0xfffffffc;    // staged: no record in this epoch
constexpr Slot kFirstSpecial = kNothing;
bool is_slot(Slot s) { return s < kFirstSpecial; }

// Page slots for shadow and staging together, so that a commit exchanges slots and copies nothing.
class Slots {
public:
    Slots(Mapping memory, std::uint64_t count) : memory_(std::move(memory)), count_(count) { free_.reserve(1024); }
    std::uint8_t* at(Slot slot) { return memory_.data() + std::size_t{slot} * kPageSize; }
    const std::uint8_t* at(Slot slot) const { return memory_.data() + std::size_t{slot} * kPageSize; }
    std::uint64_t room() const { return count_ - used_ + free_.size(); }
    Slot take()
    {
        if (free_.empty()) {
            COLO_CHECK(used_ < count_);
            return static_cast<Slot>(used_++);
        }
        const Slot slot = free_.back();
        free_.pop_back();
        return slot;
    }
    void give_back(Slot slot)
    {
        if (is_slot(slot)) free_.push_back(slot);
    }

private:
    Mapping memory_;
    std::uint64_t count_, used_ = 0;
    std::vector<Slot> free_;
};

class StagerImpl final : public Stager {
public:
    StagerImpl(const GuestDescription& guest, std::uint64_t staging_pages, Slots slots);

    Result<void> begin(Epoch epoch, Epoch base, std::size_t channels) override;
    Epoch open_epoch() const override { return epoch_; }
    Result<void> add_chunk(std::size_t channel, ByteView chunk) override;
    std::uint64_t dropped_chunks() const override { return dropped_chunks_; }
    void drop(Epoch epoch) override;
    bool complete(const Manifest& manifest) const override;
    Result<void> verify(Epoch epoch, const Manifest& manifest) const override;
    Result<std::uint64_t> prefill(GuestMemory& memory) override;
    void commit(Epoch epoch) override;
    Epoch committed() const override { return committed_; }
    const PageSet& stale() const override { return stale_; }
    Result<std::uint64_t> write_guest(GuestMemory& memory, const PageSet& own_dirty, bool everything) override;
    Result<void> rewrite(GuestMemory& memory, const PageSet& touched) override;
    const std::uint8_t* shadow(Gfn gfn) const override;
    double fill() const override;
    std::uint64_t staged_pages() const override { return touched_.size(); }

private:
    struct Parsed {
        PageRecord record;
        bool newest;   // not superseded by a record that came earlier with a higher order
    };
    Result<ByteView> unpack(const ChunkHeader& header, ByteView body);
    Result<void> parse(const ChunkHeader& header, ByteView raw);
    Result<void> check_room(std::uint64_t new_slots) const;
    void stage(const ChunkHeader& header);
    std::uint64_t place(const PageRecord& record, std::uint8_t* into);
    std::uint8_t* slot_for(Gfn gfn);
    void set_staged(Gfn gfn, Slot slot);
    const std::uint8_t* page(Slot slot) const { return slot == kZero ? zero_page() : slots_.at(slot); }
    void close_epoch();
    Result<void> write(GuestMemory& memory, const PageSet& frames);

    PageSet ram_;
    std::uint64_t staging_pages_;
    Slots slots_;
    std::vector<Slot> shadow_, staged_;          // by gfn
    std::vector<std::uint32_t> order_;           // by gfn: of the newest record in this epoch, 0 = none
    std::vector<std::uint32_t> touched_;         // frames with a record in this epoch
    std::uint64_t staged_slots_ = 0;
    PageSet stale_, todo_;
    PageSet fresh_, prefilled_;                  // first epoch: staged and not yet / already written to the guest

    bool open_ = false;
    Epoch epoch_ = 0, base_ = 0, committed_ = 0;
    std::vector<std::uint64_t> chunks_;          // by channel
    std::uint64_t pages_ = 0, digest_ = 0, dropped_chunks_ = 0;

    Decompressor decompressor_;
    Bytes raw_;
    std::vector<Parsed> parsed_;
    Bytes superseded_page_;
    std::vector<PageWrite> writes_;
};

constexpr std::size_t kWriteBatch = 4096;

StagerImpl::StagerImpl(const GuestDescription& guest, std::uint64_t staging_pages, Slots slots)
    : ram_(guest.gfn_limit()), staging_pages_(staging_pages), slots_(std::move(slots)),
      shadow_(guest.gfn_limit(), kOutside), staged_(guest.gfn_limit(), kNothing), order_(guest.gfn_limit(), 0),
      stale_(guest.gfn_limit()), todo_(guest.gfn_limit()), superseded_page_(kPageSize)
{
    for (const MemoryRegion& region : guest.regions) ram_.add_range(region.first, region.pages);
    for (const Gfn gfn : guest.special_frames) ram_.remove(gfn);
    ram_.for_each([&](Gfn gfn) { shadow_[gfn] = kZero; });
    writes_.reserve(kWriteBatch);
    parsed_.reserve(kMaxPagesPerChunk);
}

// ---- epochs -----------------------------------------------------------------------------------------------------------

Result<void> StagerImpl::begin(Epoch epoch, Epoch base, std::size_t channels)
{
    const auto invalid = [&](const std::string& why) {
        return make_error(Errc::invalid, "begin staging epoch " + std::to_string(epoch) + ": " + why);
    };
    if (open_) return invalid("epoch " + std::to_string(epoch_) + " is still open");
    if (epoch == 0 || (epoch <= epoch_ && !broken(Breakage::epoch_reused_after_abort)))
        return invalid("the last one was " + std::to_string(epoch_));
    if (base != committed_ && !broken(Breakage::stale_base_accepted))
        return invalid("its base is " + std::to_string(base) + ", but the last staged one is " + std::to_string(committed_));
    if (channels == 0 || channels > kMaxPageChannels) return invalid(std::to_string(channels) + " page channels");
    open_ = true;
    epoch_ = epoch;
    base_ = base;
    chunks_.assign(channels, 0);
    pages_ = digest_ = 0;
    if (base == 0) fresh_ = ram_;   // frames that are zero on P never arrive
    return {};
}

void StagerImpl::close_epoch()
{
    for (const std::uint32_t gfn : touched_) {
        staged_[gfn] = kNothing;
        order_[gfn] = 0;
    }
    touched_.clear();
    staged_slots_ = 0;
    open_ = false;
}

void StagerImpl::drop(Epoch epoch)
{
    if (!open_ || epoch != epoch_) return;
    for (const std::uint32_t gfn : touched_) slots_.give_back(staged_[gfn]);
    fresh_.clear();
    prefilled_.clear();
    close_epoch();
}

Result<std::uint64_t> StagerImpl::prefill(GuestMemory& memory)
{
    if (!open_ || base_ != 0) return std::uint64_t{0};
    std::uint64_t count = 0;
    writes_.clear();
    fresh_.for_each([&](Gfn gfn) {
        const Slot slot = staged_[gfn];   // what is not a page yet is what the shadow holds: zero
        writes_.push_back({gfn, is_slot(slot) ? slots_.at(slot) : nullptr});
        ++count;
    });
    if (auto r = memory.write(writes_); !r) return with_context("write pages ahead", r.error());
    prefilled_.merge(fresh_);
    fresh_.clear();
    return count;
}

void StagerImpl::commit(Epoch epoch)
{
    COLO_CHECK(open_ && epoch == epoch_);
    for (const std::uint32_t gfn : touched_) {
        if (staged_[gfn] == kUnchanged) continue;
        slots_.give_back(shadow_[gfn]);
        shadow_[gfn] = staged_[gfn];
        stale_.add(gfn);
    }
    if (base_ == 0) {
        stale_ = ram_;
        prefilled_.subtract(fresh_);
        stale_.subtract(prefilled_);
    }
    close_epoch();
    committed_ = epoch;
}

// ---- chunks -----------------------------------------------------------------------------------------------------------

Result<void> StagerImpl::add_chunk(std::size_t channel, ByteView chunk)
{
    const auto header = decode_chunk_header(chunk);
    if (!header) return header.error();
    const bool base_fits = header->base == base_ || broken(Breakage::stale_base_accepted);
    if (!open_ || header->epoch != epoch_ || !base_fits) {
        ++dropped_chunks_;
        return {};
    }
    if (channel >= chunks_.size()) return make_error(Errc::corrupt, "page chunk: no channel " + std::to_string(channel));
    if (header->order == 0) return make_error(Errc::corrupt, "page chunk: order is 0");
    auto raw = unpack(*header, chunk.subspan(kChunkHeaderSize));
    if (!raw) return raw.error();
    if (auto r = parse(*header, *raw); !r) return r;
    stage(*header);
    ++chunks_[channel];
    pages_ += header->pages;
    return {};
}

Result<ByteView> StagerImpl::unpack(const ChunkHeader& header, ByteView body)
{
    if (header.compression == Compression::none) return body;
    if (raw_.size() < header.raw_bytes) raw_.resize(header.raw_bytes);
    const std::span<std::uint8_t> out = std::span(raw_).first(header.raw_bytes);
    if (auto r = decompressor_.decompress(header.compression, body, out); !r) return with_context("page chunk", r.error());
    return ByteView(out);
}

// Looks at everything before anything is changed.
Result<void> StagerImpl::parse(const ChunkHeader& header, ByteView raw)
{
    const auto corrupt = [](const std::string& what) { return make_error(Errc::corrupt, "page chunk: " + what); };
    RecordReader reader(raw);
    parsed_.clear();
    std::uint64_t new_slots = 0;
    for (std::uint32_t i = 0; i < header.pages; ++i) {
        const auto record = reader.next();
        if (!record) return record.error();
        if (!ram_.contains(record->gfn)) return corrupt("frame " + std::to_string(record->gfn) + " is not RAM");
        if (record->kind == PageKind::delta && !is_valid_delta(record->data))
            return corrupt("delta of frame " + std::to_string(record->gfn) + " is malformed");
        const bool newest = header.order >= order_[record->gfn];
        const bool needs_page = record->kind == PageKind::delta || record->kind == PageKind::full;
        if (newest && needs_page && !is_slot(staged_[record->gfn])) ++new_slots;
        parsed_.push_back({*record, newest});
    }
    if (!reader.at_end()) return corrupt("more records than announced");
    return check_room(new_slots);
}

Result<void> StagerImpl::check_room(std::uint64_t new_slots) const
{
    // The first epoch has the shadow's room too: nothing is in it yet.
    const bool full = base_ != 0 && staged_slots_ + new_slots > staging_pages_;
    if (full || new_slots > slots_.room())
        return make_error(Errc::limit, "staging is full: " + std::to_string(staged_slots_) + " pages, limit " +
                                           std::to_string(staging_pages_));
    return {};
}

void StagerImpl::set_staged(Gfn gfn, Slot slot)
{
    const Slot old = staged_[gfn];
    if (is_slot(old) && old != slot) {
        slots_.give_back(old);
        --staged_slots_;
    }
    if (is_slot(slot) && old != slot) ++staged_slots_;
    staged_[gfn] = slot;
}

std::uint8_t* StagerImpl::slot_for(Gfn gfn)
{
    if (!is_slot(staged_[gfn])) set_staged(gfn, slots_.take());
    return slots_.at(staged_[gfn]);
}

// Decodes a delta or full record and returns the content's hash.
std::uint64_t StagerImpl::place(const PageRecord& record, std::uint8_t* into)
{
    if (record.kind == PageKind::full) {
        std::memcpy(into, record.data.data(), kPageSize);
    } else {
        std::memcpy(into, page(shadow_[record.gfn]), kPageSize);
        apply_delta(record.data, into);
    }
    return content_hash(into);
}

void StagerImpl::stage(const ChunkHeader& header)
{
    for (const Parsed& parsed : parsed_) {
        const PageRecord& record = parsed.record;
        const Gfn gfn = record.gfn;
        if (parsed.newest) {
            if (order_[gfn] == 0) touched_.push_back(static_cast<std::uint32_t>(gfn));
            order_[gfn] = header.order;
            if (base_ == 0) fresh_.add(gfn);
        }
        std::uint64_t hash = 0;
        switch (record.kind) {
        case PageKind::zero:
            if (parsed.newest) set_staged(gfn, kZero);
            hash = zero_page_hash();
            break;
        case PageKind::unchanged:
            if (parsed.newest) set_staged(gfn, kUnchanged);
            hash = content_hash(page(shadow_[gfn]));
            break;
        case PageKind::delta:
        case PageKind::full:
            hash = place(record, parsed.newest ? slot_for(gfn) : superseded_page_.data());
            break;
        }
        digest_ ^= record_digest(gfn, header.order, hash);
    }
}

// ---- R1 ---------------------------------------------------------------------------------------------------------------

bool StagerImpl::complete(const Manifest& manifest) const
{
    if (broken(Breakage::unverified_staged)) return open_;
    if (!open_ || manifest.chunks_per_channel.size() != chunks_.size()) return false;
    for (std::size_t i = 0; i < chunks_.size(); ++i)
        if (chunks_[i] < manifest.chunks_per_channel[i]) return false;
    return true;
}

Result<void> StagerImpl::verify(Epoch epoch, const Manifest& manifest) const
{
    if (broken(Breakage::unverified_staged)) return {};
    const auto differs = [&](const std::string& what, std::uint64_t here, std::uint64_t there) {
        return make_error(Errc::corrupt, "epoch " + std::to_string(epoch) + ": " + what + " is " + std::to_string(here) +
                                             " here and " + std::to_string(there) + " in the manifest");
    };
    if (!open_ || epoch != epoch_) return make_error(Errc::invalid, "epoch " + std::to_string(epoch) + " is not open");
    if (manifest.base != base_) return differs("base", base_, manifest.base);
    if (manifest.chunks_per_channel.size() != chunks_.size())
        return differs("number of page channels", chunks_.size(), manifest.chunks_per_channel.size());
    for (std::size_t i = 0; i < chunks_.size(); ++i)
        if (chunks_[i] != manifest.chunks_per_channel[i])
            return differs("chunk count of channel " + std::to_string(i), chunks_[i], manifest.chunks_per_channel[i]);
    if (manifest.pages != pages_) return differs("number of page records", pages_, manifest.pages);
    if (manifest.digest != digest_) return differs("digest of pages", digest_, manifest.digest);
    for (const Gfn gfn : manifest.released)
        if (!ram_.contains(gfn)) return make_error(Errc::corrupt, "released frame " + std::to_string(gfn) + " is not RAM");
    return {};
}

// ---- the guest --------------------------------------------------------------------------------------------------------

Result<void> StagerImpl::write(GuestMemory& memory, const PageSet& frames)
{
    writes_.clear();
    for (auto gfn = frames.next(0); gfn; gfn = frames.next(*gfn + 1)) {
        const Slot slot = shadow_[*gfn];
        writes_.push_back({*gfn, slot == kZero ? nullptr : slots_.at(slot)});
        if (writes_.size() < kWriteBatch) continue;
        if (auto r = memory.write(writes_); !r) return r;
        writes_.clear();
    }
    return writes_.empty() ? Result<void>{} : memory.write(writes_);
}

Result<std::uint64_t> StagerImpl::write_guest(GuestMemory& memory, const PageSet& own_dirty, bool everything)
{
    if (everything) {
        todo_ = ram_;
    } else {
        todo_ = stale_;
        if (!broken(Breakage::own_dirty_not_reverted)) todo_.merge(own_dirty);
        todo_.intersect(ram_);
    }
    if (auto r = write(memory, todo_); !r) return with_context("write guest memory", r.error());
    stale_.clear();
    return todo_.count();
}

Result<void> StagerImpl::rewrite(GuestMemory& memory, const PageSet& touched)
{
    todo_ = touched;
    todo_.intersect(ram_);
    if (auto r = write(memory, todo_); !r) return with_context("restore guest memory", r.error());
    return {};
}

const std::uint8_t* StagerImpl::shadow(Gfn gfn) const
{
    if (gfn >= shadow_.size() || shadow_[gfn] == kOutside) return nullptr;
    return page(shadow_[gfn]);
}

double StagerImpl::fill() const
{
    if (base_ == 0 || staging_pages_ == 0) return 0;
    return static_cast<double>(staged_slots_) / static_cast<double>(staging_pages_);
}

std::uint64_t staging_pages_of(const GuestDescription& guest, const StagerLimits& limits)
{
    return limits.staging_bytes == 0 ? guest.ram_pages() : limits.staging_bytes / kPageSize;
}

}  // namespace

std::uint64_t stager_bytes(const GuestDescription& guest, const StagerLimits& limits)
{
    return (guest.ram_pages() + staging_pages_of(guest, limits)) * kPageSize;
}

Result<std::unique_ptr<Stager>> make_stager(const GuestDescription& guest, const StagerLimits& limits)
{
    constexpr Gfn kGfnLimit = 0xf0000000;   // slots and frames are 32-bit numbers here: 15 TiB
    const std::uint64_t ram_pages = guest.ram_pages();
    const std::uint64_t staging_pages = staging_pages_of(guest, limits);
    if (guest.gfn_limit() > kGfnLimit || ram_pages > kGfnLimit || staging_pages > kGfnLimit - ram_pages)
        return make_error(Errc::unsupported, "guest memory is larger than the memory engine can number");
    const std::uint64_t bytes = stager_bytes(guest, limits);
    if (const auto available = available_memory_bytes(); available && *available < bytes)
        return make_error(Errc::limit, "shadow and staging need " + std::to_string(bytes >> 20) + " MiB, " +
                                           std::to_string((bytes - *available + (1u << 20) - 1) >> 20) +
                                           " MiB more than is available");
    auto memory = Mapping::reserve(bytes);
    if (!memory) return with_context("shadow and staging", memory.error());
    return std::unique_ptr<Stager>(
        std::make_unique<StagerImpl>(guest, staging_pages, Slots(std::move(*memory), ram_pages + staging_pages)));
}

}  // namespace colo::replication
