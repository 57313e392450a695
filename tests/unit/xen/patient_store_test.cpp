// SPDX-License-Identifier: Apache-2.0
#include "fake_store.h"
#include "xen/patient_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

using namespace colo;
using namespace colo::xen;

namespace {

constexpr Duration kSoon = std::chrono::milliseconds(500), kNotInThisTest = std::chrono::minutes(10);

// Answers whoever asks for "/held" only when it is let go.
struct Gate {
    std::promise<void> open;
    std::shared_future<void> opened = open.get_future().share();
    std::atomic<int> asked = 0, closed = 0;
};

class SlowStore final : public Store {
public:
    explicit SlowStore(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) { nodes_.nodes = {{"/held", "late"}, {"/name", "web1"}}; }
    ~SlowStore() override { ++gate_->closed; }
    Result<std::optional<std::string>> read(const std::string& path) override
    {
        ++gate_->asked;
        if (path == "/held") gate_->opened.wait();
        return nodes_.read(path);
    }
    Result<std::vector<std::string>> list(const std::string& path) override { return nodes_.list(path); }

private:
    std::shared_ptr<Gate> gate_;
    test::FakeStore nodes_;
};

Result<std::unique_ptr<Store>> slow_store(const std::shared_ptr<Gate>& gate, Duration patience)
{
    return open_patient_store([gate]() -> Result<std::unique_ptr<Store>> { return std::unique_ptr<Store>(std::make_unique<SlowStore>(gate)); },
                              patience);
}

}  // namespace

TEST(PatientStore, PassesQuestionsAndAnswersOn)
{
    auto store = slow_store(std::make_shared<Gate>(), kNotInThisTest);
    ASSERT_TRUE(store) << store.error().text;
    EXPECT_EQ(*(*store)->read("/name"), std::optional<std::string>("web1"));
    EXPECT_EQ(*(*store)->read("/none"), std::nullopt);
    EXPECT_EQ((*store)->list("")->size(), 2u);
}

TEST(PatientStore, AnErrorOfTheStoreIsPassedOn)
{
    const auto refused = open_patient_store([]() -> Result<std::unique_ptr<Store>> { return make_error(Errc::closed, "no xenstored"); }, kNotInThisTest);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().text, "no xenstored");
}

TEST(PatientStore, WaitsOnceForAStoreThatHangsAndIsAsGoodAsBeforeWhenItAnswers)
{
    const auto gate = std::make_shared<Gate>();
    auto store = slow_store(gate, kSoon);
    ASSERT_TRUE(store) << store.error().text;
    const auto late = (*store)->read("/held");
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out);
    EXPECT_NE(late.error().text.find("xenstore: read /held: no answer within 500 ms"), std::string::npos) << late.error().text;
    const auto next = (*store)->read("/name");
    ASSERT_FALSE(next);
    EXPECT_NE(next.error().text.find("xenstore: read /name: an earlier question is not answered yet"), std::string::npos) << next.error().text;
    EXPECT_EQ(gate->asked, 1) << "nothing is asked of one that owes an answer";
    gate->open.set_value();
    auto again = (*store)->read("/name");
    while (!again) {
        std::this_thread::yield();
        again = (*store)->read("/name");
    }
    EXPECT_EQ(*again, std::optional<std::string>("web1")) << "the late answer is nobody's any more";
}

TEST(PatientStore, OneThatHangsIsLeftAndClosedWhenItAnswers)
{
    const auto gate = std::make_shared<Gate>();
    {
        auto store = slow_store(gate, kSoon);
        ASSERT_TRUE(store) << store.error().text;
        ASSERT_FALSE((*store)->read("/held"));
    }
    EXPECT_EQ(gate->closed, 0);
    gate->open.set_value();
    while (gate->closed == 0) std::this_thread::yield();
}

TEST(PatientStore, ConnectingHasAnEndToo)
{
    const auto gate = std::make_shared<Gate>();
    const auto store = open_patient_store(
        [gate]() -> Result<std::unique_ptr<Store>> {
            gate->opened.wait();
            return std::unique_ptr<Store>(std::make_unique<SlowStore>(gate));
        },
        kSoon);
    ASSERT_FALSE(store);
    EXPECT_NE(store.error().text.find("xenstore: connect: no answer within 500 ms"), std::string::npos) << store.error().text;
    gate->open.set_value();
    while (gate->closed == 0) std::this_thread::yield();
}
