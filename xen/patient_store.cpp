// SPDX-License-Identifier: Apache-2.0
#include "xen/patient_store.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace colo::xen {
namespace {

constexpr const char* kRemedy = "xenstored hangs, or the host is very busy; xl list would wait as well";

// Shared with the thread, which may outlive who asked.
struct Errands {
    std::mutex mutex;
    std::condition_variable wake, done;
    std::function<void()> errand;   // with it: under way, or about to be
    bool busy = false;
    bool closing = false;
    std::unique_ptr<Store> store;   // the thread's
};

void carry_out(const std::shared_ptr<Errands>& errands)
{
    std::unique_lock lock(errands->mutex);
    for (;;) {
        errands->wake.wait(lock, [&] { return errands->busy || errands->closing; });
        if (errands->busy) {
            lock.unlock();
            errands->errand();
            lock.lock();
            errands->errand = nullptr;
            errands->busy = false;
            errands->done.notify_all();
        }
        if (errands->closing) break;
    }
    errands->store.reset();
}

class PatientStore final : public Store {
public:
    explicit PatientStore(Duration patience) : patience_(patience), thread_([errands = errands_] { carry_out(errands); }) {}
    ~PatientStore() override
    {
        bool busy = false;
        {
            const std::lock_guard lock(errands_->mutex);
            errands_->closing = true;
            busy = errands_->busy;
            errands_->wake.notify_all();
        }
        busy ? thread_.detach() : thread_.join();
    }

    Result<void> open(const OpenStore& open)
    {
        return ask<Result<void>>("connect", [open](Errands& errands) -> Result<void> {
            auto store = open();
            if (!store) return store.error();
            errands.store = std::move(*store);
            return {};
        });
    }
    Result<std::optional<std::string>> read(const std::string& path) override
    {
        return ask<Result<std::optional<std::string>>>("read " + path, [path](Errands& errands) { return errands.store->read(path); });
    }
    Result<std::vector<std::string>> list(const std::string& path) override
    {
        return ask<Result<std::vector<std::string>>>("list " + path, [path](Errands& errands) { return errands.store->list(path); });
    }

private:
    template <class Answer>
    Answer ask(const std::string& what, std::function<Answer(Errands&)> question)
    {
        std::unique_lock lock(errands_->mutex);
        if (errands_->busy) return make_error(Errc::timed_out, fmt::format("xenstore: {}: an earlier question is not answered yet: {}", what, kRemedy));
        const auto answer = std::make_shared<std::optional<Answer>>();
        errands_->errand = [errands = errands_.get(), answer, question = std::move(question)] { *answer = question(*errands); };
        errands_->busy = true;
        errands_->wake.notify_all();
        if (errands_->done.wait_for(lock, patience_, [this] { return !errands_->busy; })) return **answer;
        return make_error(Errc::timed_out, fmt::format("xenstore: {}: no answer within {} ms: {}", what, patience_.count() / 1000, kRemedy));
    }

    const Duration patience_;
    const std::shared_ptr<Errands> errands_ = std::make_shared<Errands>();
    std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Store>> open_patient_store(const OpenStore& open, Duration patience)
{
    auto store = std::make_unique<PatientStore>(patience);
    if (auto r = store->open(open); !r) return r.error();
    return std::unique_ptr<Store>(std::move(store));
}

}  // namespace colo::xen
