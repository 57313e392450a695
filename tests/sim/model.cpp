// SPDX-License-Identifier: Apache-2.0
#include "model.h"

#include "core/crc32c.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace colo::sim {

using Kind = proxy::ReleaseReason::Kind;

void Model::violation(const std::string& text)
{
    note(-1, "VIOLATION " + text);
    if (violations_.size() < 20) violations_.push_back(text);
}

void Model::note(int host, const std::string& text)
{
    hash_ = mix(hash_, mix(static_cast<std::uint64_t>(scheduler_.now().us),
                           crc32c({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()})));
    if (tracing) print(host, text);
}

void Model::print(int host, const std::string& text) const
{
    std::printf("%12.3f %c %s\n", static_cast<double>(scheduler_.now().us - 1'000'000'000) / 1000.0,
                host < 0 ? '*' : static_cast<char>('A' + host), text.c_str());
}

// ---- checkpoints ------------------------------------------------------------------------------------------------------

void Model::forget_session()
{
    begun_ = committed_ = cut_ = applied_known_ = staged_sent_ = 0;
    cuts_.clear();
    for (auto& [port, flow] : flows_) {
        flow.produced.clear();
        flow.covered.reset();
        flow.acked.reset();
        flow.received.reset();
        flow.secondary_ack.reset();
    }
}

void Model::session_opened(SessionId session)
{
    if (session == session_) return;
    session_ = session;
    ++sessions;
    forget_session();
}

void Model::epoch_begun(SessionId session, Epoch epoch)
{
    if (session != session_) return;
    if (epoch <= begun_) violation("Inv05: epoch " + std::to_string(epoch) + " after " + std::to_string(begun_));
    begun_ = epoch;
}

void Model::cut_started(SessionId session, Epoch epoch)
{
    if (session != session_) return;
    if (committed_ != 0 && applied_known_ < committed_)
        violation("Inv14: cut " + std::to_string(epoch) + " before APPLIED(" + std::to_string(committed_) + ")");
    cut_ = epoch;
}

void Model::cut_state(SessionId session, Epoch epoch, ByteView ram, const Registers& registers)
{
    if (session != session_) return;
    cuts_[epoch] = {Bytes(ram.begin(), ram.end()), registers};
    if (staged_sent_ == 0) contains_input(ram);
    while (cuts_.size() > 3) cuts_.erase(cuts_.begin());
}

void Model::committed(SessionId session, Epoch epoch, const replication::Manifest& manifest, const replication::Stager& stager)
{
    if (session != session_) return violation("Inv05: an epoch of a closed session was committed");
    ++epochs;
    committed_ = epoch;
    const auto cut = cuts_.find(epoch);
    if (cut == cuts_.end()) return violation("Inv06: epoch " + std::to_string(epoch) + " was never cut");
    for (Gfn gfn = 0; gfn < cut->second.ram.size() / kPageSize; ++gfn) {
        if (std::memcmp(stager.shadow(gfn), cut->second.ram.data() + gfn * kPageSize, kPageSize) == 0) continue;
        return violation("Inv06/08: page " + std::to_string(gfn) + " of STAGED epoch " + std::to_string(epoch) +
                         " is not the primary's at the cut");
    }
    contains(manifest.proxy);
    contains_input(cut->second.ram);
}

void Model::contains(const replication::ProxySection& section)
{
    for (auto& [port, flow] : flows_) flow.covered.reset();
    for (const replication::FlowState& f : section.flows) flows_[f.peer_port].covered = f.covered_seq;
}

void Model::contains_input(ByteView ram)
{
    for (auto& [port, flow] : flows_) flow.acked.reset();
    for (const auto& [port, next] : Service::received(ram)) flows_[port].acked = next;
}

// Before the first STAGED nobody but P can run, and S will run nothing older than this cut: what it contains may leave.
void Model::sealed(SessionId session, const replication::ProxySection& section)
{
    if (session == session_ && staged_sent_ == 0) contains(section);
}

void Model::staged_sent(SessionId session, Epoch epoch)
{
    if (session == session_) staged_sent_ = epoch;
    if (committed_ != epoch) violation("Inv06: STAGED(" + std::to_string(epoch) + ") without its content");
}

void Model::applied(SessionId session, Epoch epoch, bool loaded, ByteView ram, const Registers& registers)
{
    if (session != session_) return;
    if (epoch != committed_) return violation("Inv07: epoch " + std::to_string(epoch) + " applied, " + std::to_string(committed_) + " is staged");
    const auto cut = cuts_.find(epoch);
    if (!loaded || cut == cuts_.end()) return;
    if (std::memcmp(&registers, &cut->second.registers, sizeof registers) != 0)
        violation("Inv07: registers loaded for epoch " + std::to_string(epoch) + " are not the primary's at the cut");
    for (Gfn gfn = 0; gfn < ram.size() / kPageSize; ++gfn)
        if (std::memcmp(ram.data() + gfn * kPageSize, cut->second.ram.data() + gfn * kPageSize, kPageSize) != 0)
            return violation("Inv09/11: page " + std::to_string(gfn) + " of the secondary differs from the primary's at cut " +
                             std::to_string(epoch));
}

void Model::applied_known(SessionId session, Epoch epoch)
{
    if (session == session_) applied_known_ = epoch;
}

void Model::source_said(SessionId migration, bool completed)
{
    said_[migration] = completed;
    if (!completed && live_session_ == migration) violation("the source says that a migration failed whose destination runs");
}

void Model::going_live(SessionId session, Epoch applied)
{
    live_session_ = session;
    if (const auto said = said_.find(session); said != said_.end() && !said->second)
        violation("a destination runs of which the source has said that the migration failed");
    if (session != session_) return violation("Inv16: a secondary of an older session goes live");
    if (applied != staged_sent_)
        violation("Inv07/20: going live with epoch " + std::to_string(applied) + ", STAGED was sent for " + std::to_string(staged_sent_));
}

// ---- output -----------------------------------------------------------------------------------------------------------

void Model::secondary_received(const proxy::FramePtr& input)
{
    const auto s = read_frame(input->view());
    if (!s || s->udp) return;
    Flow& flow = flows_[s->source_port];
    const std::uint32_t end = s->seq + s->length();
    if (s->has(tcp_flag::kSyn)) flow.received.reset();
    flow.received = flow.received ? seq_max(*flow.received, end) : end;
}

void Model::secondary_produced(const proxy::FramePtr& output)
{
    const auto s = read_frame(output->view());
    if (!s || s->udp) return;
    Flow& flow = flows_[s->target_port];
    if (s->has(tcp_flag::kAck)) flow.secondary_ack = flow.secondary_ack ? seq_max(*flow.secondary_ack, s->ack) : s->ack;
    if (flow.covered && !s->has(tcp_flag::kSyn) && !s->has(tcp_flag::kRst)) {
        const auto distance = static_cast<std::int32_t>(s->seq - *flow.covered);
        if (distance > 1 << 20 || distance < -(1 << 20))
            violation("R3: port " + std::to_string(s->target_port) + ": the secondary's output is not in the client's numbers");
    }
    if (!s->payload.empty()) {
        Bytes& bytes = flow.produced[s->seq];
        if (bytes.size() < s->payload.size()) bytes = s->payload;
        else std::copy(s->payload.begin(), s->payload.end(), bytes.begin());
    }
}

bool Model::produced(const Flow& flow, std::uint32_t seq, std::uint8_t byte) const
{
    for (const auto& [start, bytes] : flow.produced)
        if (seq - start < bytes.size() && bytes[seq - start] == byte) return true;
    return false;
}

void Model::check_protected(Flow& flow, const Segment& s, const proxy::ReleaseReason& reason)
{
    const std::string who = "port " + std::to_string(s.target_port) + ": ";
    if (reason.session() != session_) return violation("R8: " + who + "released in the name of another session");
    if (reason.kind() == Kind::staged && reason.epoch() > staged_sent_)
        violation("Inv01: " + who + "output released as staged in epoch " + std::to_string(reason.epoch()) + ", S has STAGED " +
                  std::to_string(staged_sent_));
    if (reason.kind() == Kind::matched) {
        for (std::size_t i = 0; i < s.payload.size(); ++i) {
            const std::uint32_t seq = s.seq + static_cast<std::uint32_t>(i);
            if (flow.covered && seq_less(seq, *flow.covered)) continue;
            if (produced(flow, seq, s.payload[i])) continue;
            violation("Inv01/R8: " + who + "byte " + std::to_string(seq) + " released, the secondary has not produced it");
            break;
        }
    }
    if (!s.has(tcp_flag::kAck) || s.has(tcp_flag::kRst) || s.has(tcp_flag::kSyn)) return;
    const auto covers = [&](const std::optional<std::uint32_t>& have) { return have && !seq_less(*have, s.ack); };
    if (!covers(flow.received) && !covers(flow.secondary_ack) && !covers(flow.acked) && reason.kind() == Kind::matched)
        violation("R4: " + who + "client bytes to " + std::to_string(s.ack) + " acknowledged, the secondary does not have them");
}

void Model::released(int host, Generation generation, const proxy::FramePtr& frame, const proxy::ReleaseReason& reason)
{
    const bool protected_output = reason.kind() == Kind::matched || reason.kind() == Kind::staged;
    if (wire_host_ >= 0 && host != wire_host_ && generation <= wire_generation_)
        violation("Inv16: host " + std::string(1, static_cast<char>('A' + host)) + " with generation " + std::to_string(generation) +
                  " is on the wire, generation " + std::to_string(wire_generation_) + " serves elsewhere");
    if (!protected_output && generation >= wire_generation_) {
        wire_generation_ = generation;
        wire_host_ = host;
    }
    const auto s = read_frame(frame->view());
    if (!s || s->udp) return;
    Flow& flow = flows_[s->target_port];
    if (protected_output) check_protected(flow, *s, reason);
    if (s->has(tcp_flag::kSyn) && reason.kind() == Kind::replay) return;   // in S's own numbers: the client only challenges it
    if (s->has(tcp_flag::kSyn)) flow.any_released = false;
    const std::uint32_t end = s->seq + s->length();
    if (s->length() == 0) return;
    if (flow.any_released && seq_less(flow.released_end, s->seq) && !data_loss_accepted)
        violation("Inv02: port " + std::to_string(s->target_port) + ": bytes " + std::to_string(flow.released_end) + " to " +
                  std::to_string(s->seq) + " were skipped");
    flow.released_end = flow.any_released ? seq_max(flow.released_end, end) : end;
    flow.any_released = true;
}

void Model::guest_started(int host, const PersistentState& stored, bool accepted)
{
    if (accepted) return;
    if (stored.outdated || stored.in_session || stored.eligible)
        violation("Inv18/19: host " + std::string(1, static_cast<char>('A' + host)) + " starts its guest although its copy may be old");
}

}  // namespace colo::sim
