// SPDX-License-Identifier: Apache-2.0
#include "xen/control.h"
#include "xen/log_bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

// Made for C. What they include themselves is included above already.
extern "C" {
#include <xenctrl.h>
#include <xenguest.h>
#include <xen/hvm/ioreq.h>
#include <xen/memory.h>
#include <xendevicemodel.h>
#include <xenforeignmemory.h>
}

namespace colo::xen {
namespace {

// The public interface has these as macros that Control's users shall not need.
static_assert(static_cast<int>(Param::store_pfn) == HVM_PARAM_STORE_PFN && static_cast<int>(Param::console_pfn) == HVM_PARAM_CONSOLE_PFN);
static_assert(static_cast<int>(Param::ioreq_pfn) == HVM_PARAM_IOREQ_PFN && static_cast<int>(Param::bufioreq_pfn) == HVM_PARAM_BUFIOREQ_PFN);
static_assert(static_cast<int>(Param::sharing_ring_pfn) == HVM_PARAM_SHARING_RING_PFN);
static_assert(static_cast<int>(Param::mca_capabilities) == HVM_PARAM_MCA_CAP);
static_assert(XC_PAGE_SIZE == kPageSize);

// The hypervisor's bound of device models of one domain.
constexpr unsigned kMaxServers = 8;
constexpr std::uint32_t kAccessesPerPage = XC_PAGE_SIZE / sizeof(ioreq);

DomainInfo info_of(const xc_domaininfo_t& raw)
{
    DomainInfo out;
    static_assert(sizeof raw.handle == sizeof out.uuid);
    std::memcpy(out.uuid.data(), raw.handle, sizeof raw.handle);
    const auto flag = [&](std::uint32_t mask) { return (raw.flags & mask) != 0; };
    out.hvm = flag(XEN_DOMINF_hvm_guest);
    out.hap = flag(XEN_DOMINF_hap);
    out.paused = flag(XEN_DOMINF_paused);
    out.dying = flag(XEN_DOMINF_dying);
    out.shut_down = flag(XEN_DOMINF_shutdown);
    out.shutdown_reason = static_cast<std::uint8_t>(raw.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask);
    out.vcpus = raw.max_vcpu_id + 1;   // also those that the guest switched off: they may be switched on
    out.total_pages = raw.tot_pages;
    out.max_pages = raw.max_pages;
    out.outstanding_pages = raw.outstanding_pages;
    out.cpu_time_ns = raw.cpu_time;
    return out;
}

class Domain final : public Control, private Mapping::Owner {
public:
    explicit Domain(DomainId id) : id_(id) {}
    ~Domain() override
    {
        if (xch_ != nullptr) colo_log_bitmap_free(xch_, &bitmap_);
        if (accesses_ != nullptr) xenforeignmemory_unmap_resource(memory_, accesses_);
        if (model_ != nullptr) xendevicemodel_close(model_);
        if (memory_ != nullptr) xenforeignmemory_close(memory_);
        if (xch_ != nullptr) xc_interface_close(xch_);
    }

    Result<void> open();

    DomainId domain() const override { return id_; }
    Result<DomainInfo> info() override;
    Result<Gfn> gfn_limit() override;
    Result<void> pause() override { return done("pause", xc_domain_pause(xch_, id_)); }
    Result<void> unpause() override { return done("unpause", xc_domain_unpause(xch_, id_)); }
    // The way of a guest that knows of the suspension: nothing of it is touched. One without PV drivers does not look.
    // Not the "fast" way: that is for a guest that helped with its own suspension, and refuses every other end.
    Result<void> revive() override { return done("let it go on after its end", xc_domain_resume(xch_, id_, 0)); }
    Result<InFlight> in_flight() override;
    Result<void> enable_log() override { return shadow("switch the dirty log on", XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY); }
    Result<void> disable_log() override { return shadow("switch the dirty log off", XEN_DOMCTL_SHADOW_OP_OFF); }
    Result<LogAnswer> read_log(LogOp op, bool final, std::uint64_t pages) override;
    Result<void> mark_dirty(Gfn gfn) override
    {
        return done("put a frame into its dirty log", xendevicemodel_modified_memory(model_, static_cast<domid_t>(id_), gfn, 1));
    }
    Result<Mapping> map(std::span<const Gfn> gfns, Access access, std::span<int> errors) override;
    Result<std::size_t> populate(std::span<const Gfn> gfns) override;
    Result<Bytes> context() override;
    Result<void> set_context(ByteView context) override;
    Result<std::uint64_t> param(Param param) override;
    Result<void> set_param(Param param, std::uint64_t value) override;
    Result<Bytes> cpu_policy() override;
    Result<TscInfo> tsc() override;
    Result<std::string> hypervisor() override;
    Result<std::uint32_t> vnuma_nodes() override;

private:
    void unmap(std::uint8_t* data, std::size_t pages) noexcept override { xenforeignmemory_unmap(memory_, data, pages); }
    Error error(std::string_view what, int err) const { return hypercall_error(fmt::format("domain {}: {}", id_, what), err); }
    Result<void> done(std::string_view what, int status) const
    {
        if (status < 0) return error(what, errno);
        return {};
    }
    Result<void> shadow(std::string_view what, unsigned op) { return done(what, xc_shadow_control(xch_, id_, op, nullptr, 0)); }

    DomainId id_;
    xc_interface* xch_ = nullptr;
    xenforeignmemory_handle* memory_ = nullptr;
    xendevicemodel_handle* model_ = nullptr;
    xenforeignmemory_resource_handle* accesses_ = nullptr;   // the shared page, kept mapped
    const volatile ioreq* access_ = nullptr;                 // in it, one for each vCPU
    colo_log_bitmap bitmap_{};
    std::uint32_t vcpus_ = 0;         // 0: not asked for yet
    std::size_t context_bound_ = 0;   // of its size; 0: likewise
};

Result<void> Domain::open()
{
    xch_ = xc_interface_open(nullptr, nullptr, 0);
    if (xch_ == nullptr) return error("open the hypervisor's interface (is this a dom0, and are we root?)", errno);
    memory_ = xenforeignmemory_open(nullptr, 0);
    if (memory_ == nullptr) return error("open the way to other domains' memory", errno);
    model_ = xendevicemodel_open(nullptr, 0);
    if (model_ == nullptr) return error("open the interface of device models", errno);
    return {};
}

Result<DomainInfo> Domain::info()
{
    xc_domaininfo_t raw{};
    // Answers with the next domain where there is none by this number.
    const int count = xc_domain_getinfolist(xch_, id_, 1, &raw);
    if (count < 0) return error("ask for its state", errno);
    if (count == 0 || raw.domain != id_) return error("ask for its state", ESRCH);
    return info_of(raw);
}

Result<Gfn> Domain::gfn_limit()
{
    xen_pfn_t limit = 0;
    if (xc_domain_nr_gpfns(xch_, id_, &limit) < 0) return error("ask for its highest frame", errno);
    return Gfn{limit};
}

Result<InFlight> Domain::in_flight()
{
    int why = 0;   // of the first one, which every domain with a device model has
    for (unsigned server = 0; accesses_ == nullptr && server < kMaxServers; ++server) {
        void* page = nullptr;
        accesses_ = xenforeignmemory_map_resource(memory_, static_cast<domid_t>(id_), XENMEM_resource_ioreq_server, server,
                                                  XENMEM_resource_ioreq_server_frame_ioreq(0), 1, &page, PROT_READ, 0);
        if (accesses_ != nullptr) access_ = static_cast<const volatile ioreq*>(page);
        else if (why == 0) why = errno;
    }
    if (accesses_ == nullptr) return error("map what its vCPUs ask of the device model", why);
    // A domain gets its vCPUs when it is made. This is asked inside a pause, time and again.
    if (vcpus_ == 0) {
        const auto now = info();
        if (!now) return now.error();
        vcpus_ = now->vcpus;
    }
    InFlight out;
    for (std::uint32_t i = 0; i < std::min(vcpus_, kAccessesPerPage); ++i) {
        const unsigned state = access_[i].state;
        out.waiting += state == STATE_IOREQ_READY || state == STATE_IOREQ_INPROCESS;
        out.answered += state == STATE_IORESP_READY;
    }
    return out;
}

Result<LogAnswer> Domain::read_log(LogOp op, bool final, std::uint64_t pages)
{
    const std::uint64_t host_pages = (pages + 8 * kPageSize - 1) / (8 * kPageSize);
    if (bitmap_.words == nullptr || static_cast<std::uint64_t>(bitmap_.host_pages) < host_pages) {
        colo_log_bitmap_free(xch_, &bitmap_);
        if (colo_log_bitmap_make(xch_, &bitmap_, pages) != 0) return error(fmt::format("memory for a dirty log of {} frames", pages), errno);
    }
    LogAnswer out;
    const unsigned operation = op == LogOp::clean ? XEN_DOMCTL_SHADOW_OP_CLEAN : XEN_DOMCTL_SHADOW_OP_PEEK;
    const long long answered = colo_log_read(xch_, id_, operation, &bitmap_, pages, final ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0,
                                             &out.dirty, &out.faults);
    if (answered < 0) return error(op == LogOp::clean ? "read and clear its dirty log" : "read its dirty log", errno);
    out.pages = static_cast<std::uint64_t>(answered);
    out.bitmap = {bitmap_.words, static_cast<std::size_t>((pages + 63) / 64)};
    return out;
}

Result<Mapping> Domain::map(std::span<const Gfn> gfns, Access access, std::span<int> errors)
{
    if (gfns.empty() || gfns.size() > kMaxBatch || errors.size() != gfns.size()) return error("map frames", EINVAL);
    static_assert(sizeof(xen_pfn_t) == sizeof(Gfn));
    const std::vector<xen_pfn_t> frames(gfns.begin(), gfns.end());
    const int protection = access == Access::read ? PROT_READ : PROT_READ | PROT_WRITE;
    void* at = xenforeignmemory_map(memory_, id_, protection, frames.size(), frames.data(), errors.data());
    if (at == nullptr) {
        const int err = errno;
        // A range without a single frame fails as a whole.
        if (err != EFAULT && err != EINVAL && err != ENOENT) return error(fmt::format("map {} frames from {:#x}", gfns.size(), gfns.front()), err);
        std::fill(errors.begin(), errors.end(), err);
        return Mapping();
    }
    for (int& one : errors) one = one < 0 ? -one : one;
    return Mapping(*this, static_cast<std::uint8_t*>(at), gfns.size());
}

Result<std::size_t> Domain::populate(std::span<const Gfn> gfns)
{
    if (gfns.empty() || gfns.size() > kMaxBatch) return error("populate frames", EINVAL);
    std::vector<xen_pfn_t> frames(gfns.begin(), gfns.end());
    const int count = xc_domain_populate_physmap(xch_, id_, frames.size(), 0, 0, frames.data());
    if (count < 0) return error(fmt::format("populate {} frames from {:#x}", gfns.size(), gfns.front()), errno);
    return static_cast<std::size_t>(count);
}

Result<Bytes> Domain::context()
{
    // Without room for it the answer is an upper bound of its size, which stays the same: one call less inside of each pause.
    if (context_bound_ == 0) {
        const int bound = xc_domain_hvm_getcontext(xch_, id_, nullptr, 0);
        if (bound < 0) return error("ask for the size of its CPU context", errno);
        if (static_cast<std::size_t>(bound) > kMaxContext) return error(fmt::format("CPU context of {} bytes", bound), ENOMEM);
        context_bound_ = static_cast<std::size_t>(bound);
    }
    Bytes out(context_bound_);
    const int size = xc_domain_hvm_getcontext(xch_, id_, out.data(), static_cast<std::uint32_t>(out.size()));
    if (size < 0) {
        context_bound_ = 0;   // asked for anew, should that be why
        return error("get its CPU context", errno);
    }
    if (static_cast<std::size_t>(size) > out.size())
        return error(fmt::format("CPU context of {} bytes where {} were announced", size, out.size()), EINVAL);
    out.resize(static_cast<std::size_t>(size));
    return out;
}

Result<void> Domain::set_context(ByteView context)
{
    if (context.empty() || context.size() > kMaxContext) return error(fmt::format("CPU context of {} bytes", context.size()), EINVAL);
    Bytes copy(context.begin(), context.end());   // the library wants to be allowed to write to it
    return done("set its CPU context", xc_domain_hvm_setcontext(xch_, id_, copy.data(), static_cast<std::uint32_t>(copy.size())));
}

Result<std::uint64_t> Domain::param(Param param)
{
    std::uint64_t value = 0;
    const auto number = static_cast<std::uint32_t>(param);
    if (xc_hvm_param_get(xch_, id_, number, &value) < 0) return error(fmt::format("get parameter {}", number), errno);
    return value;
}

Result<void> Domain::set_param(Param param, std::uint64_t value)
{
    const auto number = static_cast<std::uint32_t>(param);
    return done(fmt::format("set parameter {} to {:#x}", number, value), xc_hvm_param_set(xch_, id_, number, value));
}

Result<Bytes> Domain::cpu_policy()
{
    const std::unique_ptr<xc_cpu_policy_t, decltype(&xc_cpu_policy_destroy)> policy(xc_cpu_policy_init(), &xc_cpu_policy_destroy);
    if (!policy || xc_cpu_policy_get_domain(xch_, id_, policy.get()) != 0) return error("ask for its CPU policy", errno);
    std::uint32_t leaf_count = 0, msr_count = 0;
    if (xc_cpu_policy_get_size(xch_, &leaf_count, &msr_count) != 0) return error("ask for the size of its CPU policy", errno);
    constexpr std::uint32_t kMost = 65536;
    if (leaf_count > kMost || msr_count > kMost) return error(fmt::format("CPU policy of {} leaves and {} MSRs", leaf_count, msr_count), EINVAL);
    std::vector<xen_cpuid_leaf_t> leaves(leaf_count);
    std::vector<xen_msr_entry_t> msrs(msr_count);
    if (xc_cpu_policy_serialise(xch_, policy.get(), leaves.data(), &leaf_count, msrs.data(), &msr_count) != 0)
        return error("read its CPU policy", errno);
    leaves.resize(std::min<std::size_t>(leaf_count, leaves.size()));
    msrs.resize(std::min<std::size_t>(msr_count, msrs.size()));
    Bytes out(leaves.size() * sizeof(xen_cpuid_leaf_t) + msrs.size() * sizeof(xen_msr_entry_t));
    const std::size_t leaf_bytes = leaves.size() * sizeof(xen_cpuid_leaf_t);
    if (leaf_bytes != 0) std::memcpy(out.data(), leaves.data(), leaf_bytes);
    if (!msrs.empty()) std::memcpy(out.data() + leaf_bytes, msrs.data(), out.size() - leaf_bytes);
    return out;
}

Result<TscInfo> Domain::tsc()
{
    TscInfo out;
    if (xc_domain_get_tsc_info(xch_, id_, &out.mode, &out.elapsed_ns, &out.khz, &out.incarnation) < 0)
        return error("ask for the mode of its TSC", errno);
    if (out.khz != 0) return out;
    xc_physinfo_t host{};
    if (xc_physinfo(xch_, &host) < 0) return error("ask for the frequency of the host's TSC", errno);
    out.khz = host.cpu_khz;
    return out;
}

Result<std::string> Domain::hypervisor()
{
    const int version = xc_version(xch_, XENVER_version, nullptr);
    if (version < 0) return error("ask for the version of the hypervisor", errno);
    return fmt::format("{}.{}", version >> 16, version & 0xffff);
}

Result<std::uint32_t> Domain::vnuma_nodes()
{
    // Without room for an answer it says only how large that is.
    std::uint32_t nodes = 0, ranges = 0, vcpus = 0;
    if (xc_domain_getvnuma(xch_, id_, &nodes, &ranges, &vcpus, nullptr, nullptr, nullptr) >= 0) return nodes;
    if (errno == EOPNOTSUPP) return 0u;
    if (errno == ENOBUFS) return std::max(nodes, 1u);
    return error("ask for its NUMA topology", errno);
}

}  // namespace

Result<std::vector<ListedDomain>> list_domains()
{
    constexpr std::uint32_t kAtOnce = 64;
    const std::unique_ptr<xc_interface, decltype(&xc_interface_close)> xch(xc_interface_open(nullptr, nullptr, 0), &xc_interface_close);
    if (!xch) return hypercall_error("open the hypervisor's interface (is this a dom0, and are we root?)", errno);
    std::vector<ListedDomain> out;
    std::vector<xc_domaininfo_t> raw(kAtOnce);
    for (DomainId from = 1;;) {
        const int count = xc_domain_getinfolist(xch.get(), from, kAtOnce, raw.data());
        if (count < 0) return hypercall_error("list the domains", errno);
        for (int i = 0; i < count; ++i) out.push_back({raw[static_cast<std::size_t>(i)].domain, info_of(raw[static_cast<std::size_t>(i)])});
        if (count < static_cast<int>(kAtOnce)) return out;
        from = out.back().domain + 1;
    }
}

Result<std::unique_ptr<Control>> open_domain(DomainId domain)
{
    auto out = std::make_unique<Domain>(domain);
    if (auto r = out->open(); !r) return r.error();
    if (auto r = out->info(); !r) return r.error();
    return std::unique_ptr<Control>(std::move(out));
}

}  // namespace colo::xen
