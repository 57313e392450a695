// SPDX-License-Identifier: Apache-2.0
#pragma once

// A host on which several domains live: hypervisor, xenstore, toolstack and device models of one another. Any thread.

#include "qemu/process.h"
#include "qemu/qmp_link.h"
#include "tests/unit/xen/fake_control.h"
#include "tests/unit/xen/fake_model.h"
#include "tests/unit/xen/fake_store.h"
#include "xen/hvm_guest.h"

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace colo::test {

class FakeHost {
public:
    struct Domain {
        FakeControl control;
        FakeModel* model = nullptr;   // that somebody is connected to
        qemu::Fd monitor;             // the device model's end of its second channel
        std::atomic<int> handles = 0; // that are open
        bool by_toolstack = false;    // by that of a guest: its device model is the one that serves our sockets
    };
    ~FakeHost();

    // ---- what there is -----------------------------------------------------------------------------------------------
    xen::DomainId make_domain(const std::string& name, bool paused) { return add(name, paused, false); }   // as any tool might
    void remove(xen::DomainId domain);
    std::optional<xen::DomainId> find(const std::string& name);
    std::size_t count();   // of the domains
    std::size_t zombies();   // destroyed, and kept by those who map their memory
    std::string name_of(xen::DomainId domain);
    // `look(Domain&)`, and nobody else does anything meanwhile.
    template <class Look>
    auto with(xen::DomainId domain, Look&& look)
    {
        const std::lock_guard lock(mutex_);
        return look(*all_.at(domain));
    }
    // What was done since the last time, without questions.
    Trace taken();

    // ---- how it fails ------------------------------------------------------------------------------------------------
    void break_store()
    {
        const std::lock_guard lock(mutex_);
        store_.broken = true;
    }
    bool ignores_uuid = false;              // the toolstack takes a UUID of its own
    bool dies_without_a_name = false;       // what it makes has no name yet
    // What the next calls of the toolstack ("create", "destroy", "rename") and of "list" answer instead of doing it, and after it.
    std::map<std::string, std::deque<Errc>> fail, fail_after;
    std::function<void()> while_creating;   // called when the domain is there
    bool no_model = false, no_probe = false;
    std::string model_fails_at;             // of the next device models
    std::string control_fails_at;           // of the next domains: each call

    // ---- what a guest gets -------------------------------------------------------------------------------------------
    xen::HvmPorts ports();

private:
    class Handle;
    class Nodes;
    class Tools;

    xen::DomainId add(const std::string& name, bool paused, bool by_toolstack);
    bool alive(xen::DomainId domain) const;
    Result<void> answer(std::map<std::string, std::deque<Errc>>& queues, const std::string& what);
    Result<std::unique_ptr<xen::DeviceModel>> connect_model();
    Result<std::unique_ptr<qemu::QmpLink>> connect_probe();
    std::shared_ptr<Domain> newest();

    std::recursive_mutex mutex_;
    std::map<xen::DomainId, std::shared_ptr<Domain>> all_;   // that ever were
    FakeStore store_;
    Trace trace_;
    xen::DomainId next_ = 3;
};

}  // namespace colo::test
