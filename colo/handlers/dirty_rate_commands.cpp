// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/control.h"

#include <cstdint>

namespace colo {

namespace commands = schema::commands;

namespace {

using Mode = schema::DirtyRateMeasureMode;

constexpr std::int64_t kCalcTimeMin = 1, kCalcTimeMax = 60;                     // seconds
constexpr std::int64_t kSamplesMin = 128, kSamplesMax = 16384, kSamples = 512;  // pages per GiB

void calc(Control& control, const commands::CalcDirtyRate::Arguments& arguments, qmp::TypedReply<void> reply)
{
    Service& service = control.service();
    if (service.dirty_rate().status == schema::DirtyRateStatus::measuring)
        return reply.fail("the dirty rate is already being measured.");
    if (arguments.calc_time < kCalcTimeMin || arguments.calc_time > kCalcTimeMax)
        return reply.fail("calc-time is out of range[1, 60].");
    const Mode mode = arguments.mode.value_or(Mode::page_sampling);
    if (arguments.sample_pages && mode == Mode::dirty_ring)
        return reply.fail("either sample-pages or dirty-ring can be specified.");
    const std::int64_t samples = arguments.sample_pages.value_or(kSamples);
    if (samples < kSamplesMin || samples > kSamplesMax) return reply.fail("sample-pages is out of range[128, 16384].");
    if (mode == Mode::dirty_ring && !service.counts_vcpu_dirty_pages())
        return reply.fail("mode dirty-ring is not enabled, use other method instead.");
    reply.complete(service.calc_dirty_rate(mode, arguments.calc_time, static_cast<std::uint64_t>(samples)));
}

}  // namespace

void add_dirty_rate_commands(Control& control, qmp::Registry& registry)
{
    registry.add<commands::CalcDirtyRate>(
        [&control](const auto& arguments, auto reply) { calc(control, arguments, std::move(reply)); });
    registry.add<commands::QueryDirtyRate>(
        [&control](const auto&, auto reply) { reply.succeed(control.service().dirty_rate()); });
}

}  // namespace colo
