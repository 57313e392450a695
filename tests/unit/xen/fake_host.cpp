// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xen/fake_host.h"

#include "core/check.h"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>
#include <sys/socket.h>

namespace colo::test {

using xen::DomainId;

// One of several that look at the same domain.
class FakeHost::Handle final : public xen::Control {
    template <class Method, class... Arguments>
    auto locked(Method method, Arguments... arguments)
    {
        const std::lock_guard lock(host_.mutex_);
        return (domain_->control.*method)(arguments...);
    }

public:
    Handle(FakeHost& host, std::shared_ptr<Domain> domain) : host_(host), domain_(std::move(domain)) { ++domain_->handles; }
    ~Handle() override { --domain_->handles; }

    DomainId domain() const override { return domain_->control.id; }
    Result<xen::DomainInfo> info() override { return locked(&FakeControl::info); }
    Result<Gfn> gfn_limit() override { return locked(&FakeControl::gfn_limit); }
    Result<void> pause() override { return locked(&FakeControl::pause); }
    Result<void> unpause() override { return locked(&FakeControl::unpause); }
    Result<void> revive() override { return locked(&FakeControl::revive); }
    Result<xen::InFlight> in_flight() override { return locked(&FakeControl::in_flight); }
    Result<void> enable_log() override { return locked(&FakeControl::enable_log); }
    Result<void> disable_log() override { return locked(&FakeControl::disable_log); }
    Result<xen::LogAnswer> read_log(xen::LogOp op, bool final, std::uint64_t pages) override
    {
        return locked(&FakeControl::read_log, op, final, pages);
    }
    Result<void> mark_dirty(Gfn gfn) override { return locked(&FakeControl::mark_dirty, gfn); }
    Result<xen::Mapping> map(std::span<const Gfn> gfns, xen::Access access, std::span<int> errors) override
    {
        return locked(&FakeControl::map, gfns, access, errors);
    }
    Result<std::size_t> populate(std::span<const Gfn> gfns) override { return locked(&FakeControl::populate, gfns); }
    Result<Bytes> context() override { return locked(&FakeControl::context); }
    Result<void> set_context(ByteView context) override { return locked(&FakeControl::set_context, context); }
    Result<std::uint64_t> param(xen::Param param) override { return locked(&FakeControl::param, param); }
    Result<void> set_param(xen::Param param, std::uint64_t value) override { return locked(&FakeControl::set_param, param, value); }
    Result<Bytes> cpu_policy() override { return locked(&FakeControl::cpu_policy); }
    Result<xen::TscInfo> tsc() override { return locked(&FakeControl::tsc); }
    Result<std::string> hypervisor() override { return locked(&FakeControl::hypervisor); }
    Result<std::uint32_t> vnuma_nodes() override { return locked(&FakeControl::vnuma_nodes); }

private:
    FakeHost& host_;
    std::shared_ptr<Domain> domain_;
};

class FakeHost::Nodes final : public xen::Store {
public:
    explicit Nodes(FakeHost& host) : host_(host) {}
    Result<std::optional<std::string>> read(const std::string& path) override
    {
        const std::lock_guard lock(host_.mutex_);
        return host_.store_.read(path);
    }
    Result<std::vector<std::string>> list(const std::string& path) override
    {
        const std::lock_guard lock(host_.mutex_);
        return host_.store_.list(path);
    }

private:
    FakeHost& host_;
};

class FakeHost::Tools final : public xen::Toolstack {
public:
    explicit Tools(FakeHost& host) : host_(host) {}
    Result<void> create(const std::string& config_file, bool paused, Deadline) override
    {
        std::ifstream in(config_file);
        const std::string text{std::istreambuf_iterator<char>(in), {}};
        const auto at = text.rfind("name = \"") + 8;
        const std::string name = text.substr(at, text.find('"', at) - at);
        {
            const std::lock_guard lock(host_.mutex_);
            host_.trace_.push_back("create " + name);
            if (auto r = host_.answer(host_.fail, "create"); !r) return r;
            if (host_.find(name)) return make_error(Errc::failed, "xl: there is a domain " + name);
            const DomainId made = host_.add(name, paused, true);
            if (const auto uuid = xen::config_uuid(text); !host_.ignores_uuid && uuid && *uuid) host_.all_.at(made)->control.described.uuid = **uuid;
            if (host_.dies_without_a_name) host_.store_.nodes.erase("/local/domain/" + std::to_string(made) + "/name");
        }
        if (host_.while_creating) host_.while_creating();
        const std::lock_guard lock(host_.mutex_);
        return host_.answer(host_.fail_after, "create");
    }
    Result<void> destroy(DomainId domain, Deadline) override
    {
        const std::lock_guard lock(host_.mutex_);
        host_.trace_.push_back("destroy");
        if (auto r = host_.answer(host_.fail, "destroy"); !r) return r;
        if (!host_.alive(domain) || host_.all_.at(domain)->control.described.dying) return make_error(Errc::failed, "xl: no such domain");
        host_.remove(domain);
        return host_.answer(host_.fail_after, "destroy");
    }
    Result<void> rename(DomainId domain, const std::string& name, Deadline) override
    {
        const std::lock_guard lock(host_.mutex_);
        if (auto r = host_.answer(host_.fail, "rename"); !r) return r;
        if (host_.find(name) || !host_.alive(domain)) return make_error(Errc::failed, "xl: cannot rename");
        host_.store_.nodes["/local/domain/" + std::to_string(domain) + "/name"] = name;
        return host_.answer(host_.fail_after, "rename");
    }

private:
    FakeHost& host_;
};

FakeHost::~FakeHost()
{
    const std::lock_guard lock(mutex_);
    for (const auto& [id, domain] : all_) domain->control.trace = nullptr;
}

bool FakeHost::alive(DomainId domain) const
{
    const auto found = all_.find(domain);
    return found != all_.end() && !found->second->control.is_gone();
}

Result<void> FakeHost::answer(std::map<std::string, std::deque<Errc>>& queues, const std::string& what)
{
    auto& queue = queues[what];
    if (queue.empty()) return {};
    const Errc code = queue.front();
    queue.pop_front();
    return make_error(code, "xl " + what + ": failed");
}

DomainId FakeHost::add(const std::string& name, bool paused, bool by_toolstack)
{
    const std::lock_guard lock(mutex_);
    const DomainId id = next_++;
    auto domain = std::make_shared<Domain>();
    domain->by_toolstack = by_toolstack;
    FakeControl& c = domain->control;
    c.id = id;
    c.described.uuid[0] = static_cast<std::uint8_t>(id);
    c.cpu_context = cpu_context();
    c.add_ram(0, 64);
    c.add_ram(0xfeff8, 8);
    c.params[xen::Param::store_pfn] = 0xfeffc;
    if (paused) (void)c.pause();
    c.trace = &trace_;
    if (!control_fails_at.empty()) c.fail[control_fails_at].assign(1000, EPERM);
    all_[id] = std::move(domain);
    const std::string number = std::to_string(id);
    store_.nodes["/local/domain/" + number + "/name"] = name;
    store_.nodes["/local/domain/" + number + "/memory/static-max"] = "1024";
    store_.nodes["/local/domain/" + number + "/memory/target"] = "1024";
    store_.nodes["/local/domain/" + number + "/memory/videoram"] = "0";
    store_.nodes["/local/domain/0/device-model/" + number + "/state"] = "running";
    store_.nodes["/libxl/" + number + "/type"] = "hvm";
    store_.nodes["/libxl/" + number + "/dm-version"] = "qemu_xen";
    return id;
}

void FakeHost::remove(DomainId domain)
{
    const std::lock_guard lock(mutex_);
    Domain& gone = *all_.at(domain);
    gone.control.described.dying = gone.control.ends_when_unmapped = true;
    gone.model = nullptr;
    gone.monitor.reset();
    std::erase_if(store_.nodes, [&](const auto& node) { return node.first.starts_with("/local/domain/" + std::to_string(domain) + "/"); });
}

std::optional<DomainId> FakeHost::find(const std::string& name)
{
    const std::lock_guard lock(mutex_);
    const auto found = xen::find_domain(store_, name);
    return found ? std::optional(*found) : std::nullopt;
}

std::size_t FakeHost::count()
{
    const std::lock_guard lock(mutex_);
    std::size_t out = 0;
    for (const auto& [id, domain] : all_) out += !domain->control.is_gone() && !domain->control.described.dying;
    return out;
}

std::size_t FakeHost::zombies()
{
    const std::lock_guard lock(mutex_);
    std::size_t out = 0;
    for (const auto& [id, domain] : all_) out += !domain->control.is_gone() && domain->control.described.dying;
    return out;
}

std::string FakeHost::name_of(DomainId domain)
{
    const std::lock_guard lock(mutex_);
    return store_.nodes["/local/domain/" + std::to_string(domain) + "/name"];
}

Trace FakeHost::taken()
{
    static const std::set<std::string> kQuestions = {"info", "gfn-limit", "param", "map", "tsc", "cpu-policy", "vnuma", "hypervisor", "in-flight", "mark", "read-log"};
    const std::lock_guard lock(mutex_);
    Trace out = std::exchange(trace_, {});
    std::erase_if(out, [&](const std::string& name) { return kQuestions.count(name) != 0; });
    return out;
}

std::shared_ptr<FakeHost::Domain> FakeHost::newest()
{
    std::shared_ptr<Domain> out;
    for (const auto& [id, domain] : all_)
        if (!domain->control.is_gone() && !domain->control.ends_when_unmapped && (!out || domain->by_toolstack || !out->by_toolstack)) out = domain;
    return out;
}

Result<std::unique_ptr<xen::DeviceModel>> FakeHost::connect_model()
{
    const std::lock_guard lock(mutex_);
    const auto domain = newest();
    if (no_model || !domain) return make_error(Errc::guest_died, "there is no device model");
    auto model = std::make_unique<FakeModel>(trace_, &mutex_);
    model->fail_at = model_fails_at;
    domain->model = model.get();
    return std::unique_ptr<xen::DeviceModel>(std::move(model));
}

Result<std::unique_ptr<qemu::QmpLink>> FakeHost::connect_probe()
{
    const std::lock_guard lock(mutex_);
    const auto domain = newest();
    if (no_probe || !domain) return make_error(Errc::guest_died, "there is no device model");
    int fds[2];
    COLO_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    domain->monitor = qemu::Fd(fds[1]);
    return std::make_unique<qemu::QmpLink>(fds[0], "probe", nullptr);
}

xen::HvmPorts FakeHost::ports()
{
    xen::HvmPorts out;
    out.open_domain = [this](DomainId domain) -> Result<std::unique_ptr<xen::Control>> {
        const std::lock_guard lock(mutex_);
        if (!alive(domain)) return make_error(Errc::guest_died, "no such domain");
        return std::unique_ptr<xen::Control>(std::make_unique<Handle>(*this, all_.at(domain)));
    };
    out.list_domains = [this]() -> Result<std::vector<xen::ListedDomain>> {
        const std::lock_guard lock(mutex_);
        if (auto r = answer(fail, "list"); !r) return r.error();
        std::vector<xen::ListedDomain> all;
        for (const auto& [id, domain] : all_)
            if (!domain->control.is_gone()) all.push_back({id, domain->control.described});
        return all;
    };
    out.open_store = [this]() -> Result<std::unique_ptr<xen::Store>> { return std::unique_ptr<xen::Store>(std::make_unique<Nodes>(*this)); };
    out.connect_model = [this](const std::string&, Deadline) { return connect_model(); };
    out.connect_probe = [this](const std::string&, Deadline) { return connect_probe(); };
    out.may_protect = [](xen::Control& control, xen::Store& store) {
        return xen::refuse(xen::precheck(control, store, [](const std::string&) { return true; }));
    };
    out.toolstack = std::make_shared<Tools>(*this);
    return out;
}

}  // namespace colo::test
