// SPDX-License-Identifier: Apache-2.0
#include "replication/dirty_rate.h"

#include <xxhash.h>

#include <algorithm>
#include <array>

namespace colo::replication {
namespace {

constexpr std::size_t kBatch = 32;  // frames of one read
constexpr std::uint64_t kPagesPerGib = 1u << 18;

// One random page out of each of `samples` equal parts of RAM: spread evenly, none twice, in rising order.
class PageSampling final : public DirtyRateMeter {
public:
    PageSampling(Guest& guest, Duration calc_time, std::uint64_t pages_per_gib, std::uint64_t seed)
        : guest_(guest),
          calc_time_(calc_time),
          seed_(seed),
          ram_pages_(guest.description().ram_pages()),
          parts_(std::clamp<std::uint64_t>(
              ram_pages_ / kPagesPerGib * pages_per_gib + ram_pages_ % kPagesPerGib * pages_per_gib / kPagesPerGib, 1,
              std::max<std::uint64_t>(ram_pages_, 1)))
    {
    }

    Result<Time> step(Time now, bool) override
    {
        if (pass_ == 2 || ram_pages_ == 0) return kNever;
        if (next_ == 0) begun_[pass_] = now;
        const std::uint64_t end = std::min<std::uint64_t>(next_ + kSamplesPerStep, parts_);
        while (next_ < end)
            if (auto r = hash(static_cast<std::size_t>(std::min<std::uint64_t>(kBatch, end - next_))); !r)
                return r.error();
        if (next_ < parts_) return now + kSamplePause;
        ended_[pass_] = now;
        next_ = 0;
        return ++pass_ == 2 ? kNever : std::max(now, begun_[0] + calc_time_);
    }

    // What is true of the samples is taken to be true of all pages.
    DirtyRate total() const override
    {
        if (pass_ < 2 || compared_ == 0) return {};
        const double part = static_cast<double>(changed_) / static_cast<double>(compared_);
        // Each page was looked at twice, the first ones earlier than the last ones: the mean of what lay in between.
        return {static_cast<std::uint64_t>(part * static_cast<double>(ram_pages_) + 0.5),
                ((begun_[1] - begun_[0]) + (ended_[1] - ended_[0])) / 2};
    }

private:
    struct Sample {
        Gfn gfn;
        std::uint64_t hash;
        FrameStatus status;
    };

    std::uint64_t random()  // splitmix64
    {
        std::uint64_t x = seed_ += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

    Gfn choose(std::uint64_t part)
    {
        const std::uint64_t width = ram_pages_ / parts_, wider = ram_pages_ % parts_;  // the first parts have one more
        const std::uint64_t first = part * width + std::min(part, wider);
        std::uint64_t page = first + random() % (width + (part < wider ? 1 : 0));
        for (const MemoryRegion& region : guest_.description().regions) {
            if (page < region.pages) return region.first + page;
            page -= region.pages;
        }
        return 0;
    }

    Result<void> hash(std::size_t count)
    {
        std::array<Gfn, kBatch> gfns{};
        std::array<FrameStatus, kBatch> status{};
        for (std::size_t i = 0; i < count; ++i) {
            if (pass_ == 0) samples_.push_back({choose(next_ + i), 0, FrameStatus::failed});
            gfns[i] = samples_[next_ + i].gfn;
        }
        if (auto r = guest_.memory().peek(std::span(gfns).first(count), pages_.data(), std::span(status).first(count));
            !r)
            return r;
        for (std::size_t i = 0; i < count; ++i) note(samples_[next_ + i], status[i], pages_.data() + i * kPageSize);
        next_ += count;
        return {};
    }

    void note(Sample& sample, FrameStatus status, const std::uint8_t* page)
    {
        const std::uint64_t hash = status == FrameStatus::ok ? XXH3_64bits(page, kPageSize) : 0;
        if (pass_ == 0) {
            sample.hash = hash;
            sample.status = status;
            return;
        }
        const auto& special = guest_.description().special_frames;
        if (sample.status == FrameStatus::failed || status == FrameStatus::failed ||
            std::find(special.begin(), special.end(), sample.gfn) != special.end())
            return;
        ++compared_;
        if (hash != sample.hash || status != sample.status) ++changed_;
    }

    Guest& guest_;
    Duration calc_time_;
    std::uint64_t seed_;
    std::uint64_t ram_pages_, parts_;
    std::size_t pass_ = 0;  // 0 and 1: under way, 2: done
    std::uint64_t next_ = 0;
    std::array<Time, 2> begun_{}, ended_{};
    std::uint64_t compared_ = 0, changed_ = 0;
    std::vector<Sample> samples_;
    Bytes pages_ = Bytes(kBatch * kPageSize);
};

}  // namespace

std::unique_ptr<DirtyRateMeter> make_page_sampling(Guest& guest, Duration calc_time, std::uint64_t pages_per_gib,
                                                   std::uint64_t seed)
{
    return std::make_unique<PageSampling>(guest, calc_time, pages_per_gib, seed);
}

}  // namespace colo::replication
