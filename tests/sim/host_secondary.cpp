// SPDX-License-Identifier: Apache-2.0
#include "core/breakage.h"
#include "replication/chunk.h"
#include "host.h"

namespace colo::sim {

namespace {
template <class... F> struct Overloaded : F... { using F::operator()...; };
template <class... F> Overloaded(F...) -> Overloaded<F...>;
proxy::ProxyOptions proxy_options()
{
    proxy::ProxyOptions options;
    options.nics = {kGuestMac};
    return options;
}
constexpr Duration kApplyBound{2'000'000};
}  // namespace

void Host::perform_secondary(const Action& action)
{
    Life& l = *life_;
    std::visit(
        Overloaded{
            [&](const action::PrepareStandby&) { prepare_standby(); },
            [&](const action::OpenSession& a) {
                if (l.node->status().role == Role::secondary) open_secondary(a);
            },
            [&](const action::StageBegin& a) { stage_begin(a); },
            [&](const action::StageDrop& a) {
                if (l.stager) l.stager->drop(a.epoch);
                if (l.finishing == a.epoch) l.finishing = 0;
                on_proxy([this, epoch = a.epoch] { if (life_->secondary_proxy) life_->secondary_proxy->aborted(epoch, local_now()); });
            },
            [&](const action::StageFinish& a) {
                l.finishing = a.epoch;
                l.manifest = a.manifest;
                check_complete();
            },
            [&](const action::Commit& a) { commit(a); },
            [&](const action::Apply& a) { guest_job([this, a] { do_apply(a.epoch, a.mode, a.resume, false); }); },
            [&](const action::RollForward& a) {
                guest_job([this, a] { do_apply(a.epoch, replication::Mode::lock_step, a.resume, true); });
            },
            [&](const action::GoLive& a) { guest_job([this, a] { go_live(a); }); },
            [](const auto&) {},
        },
        action);
}

void Host::prepare_standby()
{
    Life& l = *life_;
    if (l.connection) {
        for (const auto& stream : l.connection->from[index_]) stream->finish();
        l.connection.reset();
    }
    l.closed = true;
    l.primary_proxy.reset();
    l.secondary_proxy.reset();
    guest_job([this] {
        Life& me = *life_;
        me.engine.reset();
        me.guest->kill();
        const Deadline deadline = local_now() + Duration{60'000'000};
        const auto result = me.guest_created ? me.guest->recreate(deadline) : me.guest->create(replication::StartMode::loadable, deadline);
        me.guest_created = true;
        me.log_started = false;
        after(Lane::control, Duration{20}, [this, result] { feed([&](Node& n, Time t) { n.standby_ready(result, t); }); });
    });
}

void Host::open_secondary(const action::OpenSession& a)
{
    Life& l = *life_;
    l.session = a.session;
    l.closed = false;
    l.stager = replication::make_stager(sim_description(surroundings_.settings.pages), {}).value();
    l.secondary_proxy = proxy::make_secondary_proxy(proxy_options(), *this);
    l.own.clear();
    l.finishing = 0;
    l.journal.clear();
    l.sent_load_counts.clear();
    (void)l.guest->drain();
}

// ---- staging ----------------------------------------------------------------------------------------------------------

void Host::stage_begin(const action::StageBegin& a)
{
    if (auto r = life_->stager->begin(a.epoch, a.base, kPageChannels); !r)
        return surroundings_.model.violation("stager: " + r.error().text);
    add_waiting_chunks();
}

void Host::chunk(std::size_t channel, ByteView bytes)
{
    const auto header = replication::decode_chunk_header(bytes);
    if (!header) return feed([&](Node& n, Time t) { n.protocol_error(header.error(), t); });
    life_->waiting_chunks[channel].push_back({header->epoch, Bytes(bytes.begin(), bytes.end())});
    add_waiting_chunks();
}

void Host::add_waiting_chunks()
{
    Life& l = *life_;
    for (std::size_t channel = 0; channel < kPageChannels; ++channel) {
        auto& queue = l.waiting_chunks[channel];
        while (!queue.empty() && queue.front().epoch <= l.stager->open_epoch()) {
            const Chunk c = std::move(queue.front());
            queue.pop_front();
            if (auto r = l.stager->add_chunk(channel, c.bytes); !r) {
                note("chunk: " + r.error().text);
                return feed([&](Node& n, Time t) { n.protocol_error(r.error(), t); });
            }
            if (l.stager->fill() >= replication::kStagingTrigger)
                feed([&](Node& n, Time t) { n.staging_full(l.stager->open_epoch(), t); });
            if (random_.chance(0.5)) (void)l.stager->prefill(l.guest->memory());
        }
    }
    check_complete();
}

void Host::check_complete()
{
    Life& l = *life_;
    if (l.finishing == 0 || !l.stager || !l.stager->complete(l.manifest)) return;
    const bool disk = l.manifest.disks.empty() || l.journal_number >= l.manifest.disks[0].last_write;
    if (!disk && !broken(Breakage::unverified_staged)) return;
    const Epoch epoch = std::exchange(l.finishing, 0);
    Result<void> result = l.stager->verify(epoch, l.manifest);
    if (result) result = l.guest->verify(l.manifest.state);
    after(Lane::control, random_.between(10, 200), [this, epoch, result, session = l.session] {
        if (session == life_->session && !life_->closed) feed([&](Node& n, Time t) { n.stage_complete(epoch, result, t); });
    });
}

void Host::commit(const action::Commit& a)
{
    Life& l = *life_;
    l.stager->commit(a.epoch);
    l.committed_manifest = std::move(l.manifest);
    l.manifest = {};
    surroundings_.model.committed(l.session, a.epoch, l.committed_manifest, *l.stager);
    const std::uint64_t last = l.committed_manifest.disks.empty() ? 0 : l.committed_manifest.disks[0].last_write;
    for (const auto& w : l.journal)
        if (w.number <= last) disk_[w.sector] = w.value;
    std::erase_if(l.journal, [last](const Life::Write& w) { return w.number <= last; });
}

// ---- apply ------------------------------------------------------------------------------------------------------------

void Host::do_apply(Epoch epoch, replication::Mode mode, bool resume, bool roll)
{
    Life& l = *life_;
    if (!l.stager || l.stager->committed() != epoch) return;
    ApplyRequest request;
    request.epoch = epoch;
    request.manifest = &l.committed_manifest;
    request.load = roll || mode == replication::Mode::lock_step;
    request.resume = resume && request.load;
    request.bound = kApplyBound;
    l.loading = request.load;
    Result<ApplyOutput> out = make_error(Errc::failed, "not run");
    if (roll) {
        out = run_roll_forward(*l.guest, *l.stager, *this, request, clock_);
        l.log_started = static_cast<bool>(out);
    } else {
        if (request.load && !l.log_started) {
            l.log_started = static_cast<bool>(l.guest->dirty_log().start());
            replication::PageSet all;
            (void)l.guest->dirty_log().fetch_and_clear(all, true);
        }
        out = run_apply(*l.guest, *l.stager, *this, request, clock_);
    }
    if (!out) note("apply " + std::to_string(epoch) + ": " + out.error().text);
    const auto result = out ? Result<void>{} : Result<void>(out.error());
    if (out) l.apply_epoch = epoch;
    const Duration took = out ? out->total : Duration{0};
    after(Lane::control, Duration{20}, [this, epoch, result, took] {
        feed([&](Node& n, Time t) { n.apply_done(epoch, result, took, 0, t); });
    });
}

// The proxy thread does it; this job waits.
Result<void> Host::proxy_step(std::function<void()> run, Deadline deadline)
{
    auto done = std::make_shared<bool>(false);
    on_proxy([run = std::move(run), done] {
        run();
        *done = true;
    });
    while (!*done) {
        if (local_now() > deadline) return make_error(Errc::timed_out, "the proxy does not answer");
        life_->fiber->sleep(Duration{15});
    }
    return {};
}

Result<void> Host::seal(Deadline deadline)
{
    step("job:seal");
    return proxy_step(
        [this] {
            if (!life_->secondary_proxy) return;
            drain_port();
            (void)life_->guest->take_unread();
            life_->secondary_proxy->seal(local_now());
        },
        deadline);
}

Result<void> Host::applied(Epoch epoch, const replication::ProxySection& section, bool paused, Deadline deadline)
{
    Life& l = *life_;
    surroundings_.model.applied(l.session, epoch, l.loading, l.guest->ram(), l.guest->registers());
    ++l.load_count;
    l.own.clear();
    return proxy_step(
        [this, epoch, section, paused] {
            if (!life_->secondary_proxy) return;
            if (paused) life_->secondary_proxy->set_paused(true, local_now());
            life_->secondary_proxy->applied(epoch, section, local_now());
            if (!paused) life_->secondary_proxy->set_paused(false, local_now());
        },
        deadline);
}

// ---- going live -------------------------------------------------------------------------------------------------------

void Host::go_live(const action::GoLive& a)
{
    Life& l = *life_;
    step("job:live");
    surroundings_.model.going_live(l.session, l.apply_epoch);
    const Deadline deadline = local_now() + kApplyBound;
    Result<void> result = proxy_step(
        [this, generation = a.generation] {
            Life& me = *life_;
            if (!me.secondary_proxy) return;
            drain_port();
            const proxy::TakeOver take_over = me.secondary_proxy->take_over(local_now());
            me.secondary_proxy.reset();
            for (const auto& [sector, value] : me.own) disk_[sector] = value;
            me.own.clear();
            me.journal.clear();
            me.wire_frozen = false;
            me.primary_proxy = proxy::make_primary_proxy(proxy_options(), *this, take_over, local_now());
            me.primary_proxy->set_output(proxy::PrimaryProxy::Output::flow, generation, local_now());
            for (const auto& frame : me.primary_proxy->announcements(0))
                to_wire(0, frame, proxy::ReleaseReason::announcement(generation));
        },
        deadline);
    if (result && a.power == replication::PowerState::running && !l.guest->running()) result = run_resume(*l.guest, deadline);
    after(Lane::control, Duration{20}, [this, result] { feed([&](Node& n, Time t) { n.went_live(result, t); }); });
}

void Host::output(std::uint8_t nic, Epoch epoch, const proxy::FramePtr& frame)
{
    surroundings_.model.frame(index_, "copy's output", epoch, frame->view());
    surroundings_.model.secondary_produced(frame);
    if (life_->closed || !life_->connection) return;
    Bytes out;
    life_->writers[1]->append_output(out, nic, epoch, frame->view());
    send(1, std::move(out));
}

void Host::journalled(Epoch epoch, std::uint64_t number)
{
    if (life_->closed || !life_->connection) return;
    Bytes out;
    life_->writers[1]->append_journalled(out, epoch, number);
    send(1, std::move(out));
}

}  // namespace colo::sim
