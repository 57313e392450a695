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
}  // namespace

void Host::perform_primary(const Action& action)
{
    Life& l = *life_;
    std::visit(
        Overloaded{
            [&](const action::BootGuest&) {
                surroundings_.model.guest_started(index_, stored_, surroundings_.model.data_loss_accepted);
                l.secondary_proxy.reset();
                l.primary_proxy = proxy::make_primary_proxy(proxy_options(), *this);
                l.wire_frozen = false;
                guest_job([this] {
                    const auto result = life_->guest->create(replication::StartMode::boot, local_now() + Duration{60'000'000});
                    life_->guest_created = true;
                    after(Lane::control, Duration{20}, [this, result] { feed([&](Node& n, Time t) { n.guest_booted(result, t); }); });
                });
            },
            [&](const action::OpenSession& a) {
                if (l.node->status().role == Role::primary) open_primary(a);
            },
            [&](const action::StartEpoch& a) { guest_job([this, a] { start_epoch(a); }); },
            [&](const action::StartCut& a) {
                surroundings_.model.cut_started(l.session, a.epoch);
                guest_job([this, a] { do_cut(a); });
            },
            [&](const action::SendEpoch& a) { guest_job([this, epoch = a.epoch] { do_send(epoch); }); },
            [&](const action::AbortEpoch& a) {
                guest_job([this, epoch = a.epoch] {
                    if (life_->engine) life_->engine->aborted(epoch);
                    if (life_->engine_epoch == epoch) life_->engine_epoch = 0;
                });
                on_proxy([this, epoch = a.epoch] { if (life_->primary_proxy) life_->primary_proxy->aborted(epoch, local_now()); });
            },
            [&](const action::ReleaseStaged& a) {
                on_proxy([this, epoch = a.epoch] { if (life_->primary_proxy) life_->primary_proxy->staged(epoch, local_now()); });
                guest_job([this, epoch = a.epoch] {
                    if (life_->engine) life_->engine->staged(epoch);
                    if (life_->engine_epoch == epoch) life_->engine_epoch = 0;
                });
            },
            [&](const action::OpenComparer& a) {
                surroundings_.model.applied_known(l.session, a.epoch);
                on_proxy([this, a] {
                    if (!life_->primary_proxy) return;
                    life_->primary_proxy->set_mode(a.mode, local_now());
                    life_->primary_proxy->applied(a.epoch, local_now());
                });
            },
            [&](const action::SetOutput& a) {
                const auto output = static_cast<proxy::PrimaryProxy::Output>(a.output);
                if (output == proxy::PrimaryProxy::Output::frozen) l.wire_frozen = true;
                on_proxy([this, output, a] {
                    if (!life_->primary_proxy) return;
                    life_->wire_frozen = output == proxy::PrimaryProxy::Output::frozen;
                    life_->primary_proxy->set_output(output, a.generation, local_now());
                });
            },
            [](const auto&) {},
        },
        action);
}

void Host::open_primary(const action::OpenSession& a)
{
    Life& l = *life_;
    l.session = a.session;
    l.closed = false;
    surroundings_.model.session_opened(a.session);
    peer->disk_ = disk_;
    if (peer->life_) {
        peer->life_->journal.clear();
        peer->life_->journal_number = l.writes;
    }
    on_proxy([this, session = a.session] {
        if (!life_->primary_proxy || life_->closed) return;
        life_->primary_proxy->begin_session(session, local_now());
        life_->primary_proxy->set_lease(life_->heartbeat->lease_until(), local_now());
    });
    guest_job([this] {
        replication::CaptureOptions options;
        options.compression = surroundings_.settings.compression;
        options.arena_pages = static_cast<std::uint32_t>(surroundings_.settings.pages + 64);
        options.pages_per_chunk = 8;
        options.delta_cache_bytes = surroundings_.settings.pages * kPageSize / 2;
        life_->engine = replication::make_capture_engine(*life_->guest, options);
        life_->engine_epoch = 0;
    });
}

replication::ChunkSink Host::sink()
{
    return [this](ByteView bytes) -> Result<void> {
        Life& l = *life_;
        if (l.closed || !l.connection) return make_error(Errc::closed, "no session");
        const std::size_t channel = random_.below(kPageChannels);
        Bytes out;
        const auto header = replication::decode_chunk_header(bytes);
        l.writers[2 + channel]->append_chunk(out, header ? header->epoch : 0, bytes);
        ++l.chunks[channel];
        // A fault that no network makes: an old chunk under the number of the open epoch, with the base it was made for.
        if (header && header->base > 1 && stale_chunk_) {
            stale_chunk_ = false;
            replication::ChunkHeader stale = *header;
            stale.base = header->base - 1;
            Bytes again(bytes.begin(), bytes.end());
            replication::store_chunk_header(again.data(), stale);
            l.writers[2 + channel]->append_chunk(out, header->epoch, again);
            note("stale chunk injected");
        }
        send(2 + channel, std::move(out));
        return {};
    };
}

void Host::start_epoch(const action::StartEpoch& a)
{
    Life& l = *life_;
    if (!l.engine) return;
    if (l.engine_epoch != a.epoch) {
        if (auto r = l.engine->begin_epoch(a.epoch, a.base); !r) return surroundings_.model.violation("engine: " + r.error().text);
        for (auto& n : l.chunks) n = 0;
    }
    l.engine_epoch = a.epoch;
    l.base = a.base;
    l.first = a.base == 0;
    if (l.first) return precapture_first(a.epoch);
    const Duration lead = random_.between(500, 6000);
    precapture_later(a.epoch, a.planned_cut - lead);
    if (surroundings_.settings.extra_precapture) precapture_later(a.epoch, local_now() + random_.between(200, 4000));
}

void Host::precapture_first(Epoch epoch)
{
    for (int round = 0; round < 6; ++round) {
        Life& l = *life_;
        if (!l.engine || l.engine_epoch != epoch || l.closed) return;
        const auto pages = l.engine->precapture(sink(), round == 0 ? 24 : 0);
        if (!pages) {
            after(Lane::control, Duration{20}, [this, text = pages.error().text, session = l.session] {
                if (session == life_->session && !life_->closed) feed([&](Node& n, Time t) { n.channel_lost(text, t); });
            });
            return;
        }
        l.fiber->sleep(random_.between(200, 1500));
    }
    after(Lane::control, Duration{20}, [this, epoch, session = life_->session] {
        if (session == life_->session) feed([&](Node& n, Time t) { n.initial_copy_converged(epoch, t); });
    });
}

void Host::precapture_later(Epoch epoch, Time at)
{
    const Duration wait = std::max(Duration{1}, at - local_now());
    after(Lane::guest, wait, [this, epoch, session = life_->session] {
        guest_job([this, epoch, session] {
            Life& l = *life_;
            if (!l.engine || l.engine_epoch != epoch || l.session != session || l.closed) return;
            step("job:precapture");
            (void)l.engine->precapture(sink(), 0);   // a failure shows at the cut
        });
    });
}

void Host::do_cut(const action::StartCut& a)
{
    Life& l = *life_;
    const auto answer = [this](Epoch epoch, Result<void> result) {
        after(Lane::control, Duration{20}, [this, epoch, result] { feed([&](Node& n, Time t) { n.cut_done(epoch, result, t); }); });
    };
    if (!l.engine || l.engine_epoch != a.epoch) return answer(a.epoch, make_error(Errc::cancelled, "the session is over"));
    l.cutting = a.epoch;
    if (surroundings_.settings.extra_precapture) (void)l.engine->precapture(sink(), 0);
    after(Lane::control, Duration{20},
          [this, epoch = a.epoch] { feed([&](Node& n, Time t) { n.cut_begun(epoch, t); }); });
    auto out =
        run_cut(*l.guest, *l.engine, *this, a.epoch, a.base == 0, {a.pause_bound, a.answer_bound}, clock_, a.power);
    if (!out) {
        note("cut " + std::to_string(a.epoch) + ": " + out.error().text);
        return answer(a.epoch, out.error());
    }
    if (a.power != replication::PowerState::running)   // off for good: nothing resumes it, so nobody has recorded it yet
        surroundings_.model.cut_state(l.session, a.epoch, l.guest->ram(), l.guest->registers());
    if (out->pause > a.pause_bound)
        surroundings_.model.violation("Inv12: paused for " + std::to_string(out->pause.count()) + " us, the bound is " +
                                      std::to_string(a.pause_bound.count()));
    l.cut = std::move(*out);
    answer(a.epoch, {});
}

void Host::do_send(Epoch epoch)
{
    Life& l = *life_;
    if (!l.engine || l.engine_epoch != epoch) return;
    step("job:send");
    l.fiber->sleep(random_.between(50, 800));
    if (!l.engine) return;
    Result<replication::Manifest> result = replication::Manifest{};
    if (auto r = l.engine->flush_residue(sink()); !r) {
        result = r.error();
    } else {
        const auto totals = l.engine->totals();
        result->chunks_per_channel.assign(std::begin(l.chunks), std::end(l.chunks));
        result->pages = totals.pages;
        result->digest = totals.digest;
        result->released = totals.released;
        result->state = std::move(l.cut.state);
        result->proxy = std::move(l.cut.proxy);
        result->disks = {{"sim", l.cut_writes}};
        if (surroundings_.settings.eager && !l.closed) {
            // Fetching for the next epoch while this one is in flight: its bits are its own (R6).
            if (l.engine->begin_epoch(epoch + 1, epoch)) {
                l.engine_epoch = epoch + 1;
                for (auto& n : l.chunks) n = 0;
                (void)l.engine->precapture(sink(), 0);
            }
        }
    }
    after(Lane::control, Duration{20}, [this, epoch, result = std::move(result), session = l.session] {
        if (session == life_->session) feed([&](Node& n, Time t) { n.transfer_done(epoch, result, t); });
    });
}

// ---- the seal ---------------------------------------------------------------------------------------------------------

void Host::prepare()
{
    life_->input_paused = true;
    step("job:cut");
}

void Host::cancel()
{
    on_proxy([this] { release_input(); });
}

void Host::start_seal(Epoch next, bool protect)
{
    life_->cut_writes = life_->writes;
    life_->sealed = false;
    on_proxy([this, next, protect] { do_seal(next, protect); });
}

Result<replication::ProxySection> Host::finish_seal(Deadline deadline)
{
    step("job:seal");
    while (!life_->sealed) {
        if (local_now() > deadline) return make_error(Errc::timed_out, "the proxy does not answer");
        life_->fiber->sleep(Duration{15});
    }
    return std::move(life_->section);
}

void Host::do_seal(Epoch next, bool protect)
{
    Life& l = *life_;
    if (!l.primary_proxy) return;
    const bool late = l.closed;   // the session ended meanwhile: nobody must be protected any more
    if (!broken(Breakage::no_seal)) drain_port();
    if (protect && !late) l.primary_proxy->set_output(proxy::PrimaryProxy::Output::protect, l.node->status().generation, local_now());
    std::vector<proxy::PrimaryProxy::UnreadInput> unread;
    for (const auto& frame : l.guest->take_unread()) unread.push_back({0, frame});
    if (!late) {
        l.section = l.primary_proxy->seal(next, unread, local_now());
        surroundings_.model.sealed(l.session, l.section);
    }
    else for (const auto& input : unread) l.guest->deliver(input.frame);
    l.sealed = true;
    if (broken(Breakage::no_seal)) drain_port();
    release_input();
}

void Host::release_input()
{
    Life& l = *life_;
    l.input_paused = false;
    for (const auto& frame : std::exchange(l.waiting_input, {}))
        if (l.primary_proxy) l.primary_proxy->wire_frame(0, frame, local_now());
}

// ---- wire and proxy ---------------------------------------------------------------------------------------------------

void Host::wire_frame(ByteView frame)
{
    if (!life_) return;
    after(Lane::proxy, Duration{5}, [this, f = proxy::make_frame(Bytes(frame.begin(), frame.end()))] {
        Life& l = *life_;
        if (!l.primary_proxy || target_mac(f->view()) != kGuestMac) return;   // S's wire is off
        surroundings_.model.frame(index_, "in", l.node->status().epoch, f->view());
        if (l.input_paused) l.waiting_input.push_back(f);
        else l.primary_proxy->wire_frame(0, f, local_now());
    });
}

void Host::to_guest(std::uint8_t, const proxy::FramePtr& frame)
{
    if (!random_.chance(surroundings_.settings.port_loss)) life_->guest->deliver(frame);
}

void Host::to_wire(std::uint8_t, const proxy::FramePtr& frame, const proxy::ReleaseReason& reason)
{
    if (life_->wire_frozen) return;
    const bool in_session = reason.kind() == proxy::ReleaseReason::Kind::matched || reason.kind() == proxy::ReleaseReason::Kind::staged;
    const Generation generation = in_session ? life_->node->status().generation : reason.epoch();
    static constexpr const char* kKinds[] = {"out matched", "out staged", "out unprotected", "out announcement", "out replay"};
    surroundings_.model.frame(index_, kKinds[static_cast<std::size_t>(reason.kind())], reason.epoch(), frame->view());
    surroundings_.model.released(index_, generation, frame, reason);
    surroundings_.network.from_host(index_, frame->view());
}

void Host::mirror(std::uint8_t nic, Epoch epoch, std::uint64_t number, const proxy::FramePtr& frame)
{
    if (life_->closed || !life_->connection) return;
    Bytes out;
    life_->writers[1]->append_input(out, nic, epoch, number, frame->view());
    send(1, std::move(out));
}

void Host::trigger(replication::TriggerReason reason, const std::string& detail)
{
    note(std::string("trigger ") + replication::to_string(reason) + " " + detail);
    after(Lane::control, random_.between(5, 40), [this, reason] { feed([&](Node& n, Time t) { n.trigger(reason, t); }); });
}

}  // namespace colo::sim
