// SPDX-License-Identifier: Apache-2.0
#include "proxy/send_queue.h"

#include <gtest/gtest.h>

namespace colo::proxy {
namespace {

class SendQueueTest : public ::testing::Test {
protected:
    static SendQueue::Entry entry(std::uint8_t number, std::size_t size = 100)
    {
        return {make_frame(Bytes(size, number)), false};
    }
    void push(std::uint8_t number, std::size_t size = 100) { queue.push(entry(number, size), now); }
    // What left, by number, with room for `room`.
    std::vector<int> drain(std::size_t room)
    {
        std::vector<int> left;
        EXPECT_TRUE(queue.drain(now, [&](const SendQueue::Entry& e) -> Result<SendResult> {
            if (left.size() == room) return SendResult::full;
            left.push_back(e.frame->bytes[0]);
            return SendResult::sent;
        }));
        return left;
    }
    Time now{1'000'000};
    SendQueue queue{{4, 1000, Duration{10'000}}};
};

TEST_F(SendQueueTest, Inv29_KeepsOrderWithinItsBoundsAndCountsTheRest)
{
    for (std::uint8_t i = 0; i < 6; ++i) push(i);
    EXPECT_EQ(queue.size(), 4u);
    EXPECT_EQ(queue.dropped(), 2u) << "the newest";
    now = queue.due();
    EXPECT_EQ(drain(2), (std::vector<int>{0, 1}));
    push(7, 900);
    EXPECT_EQ(queue.dropped(), 3u) << "too many bytes";
    now = queue.due();
    EXPECT_EQ(drain(9), (std::vector<int>{2, 3}));
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.bytes(), 0u);
    EXPECT_EQ(queue.due(), kNever);
    push(8, 900);
    EXPECT_EQ(queue.size(), 1u);
}

TEST_F(SendQueueTest, AsksRarelyWhileNothingLeavesAndOftenWhenItDoes)
{
    queue = SendQueue({4, 1000, Duration::max()});
    push(1);
    push(2);
    push(3);
    const Duration first = queue.due() - now;
    for (int i = 0; i < 20; ++i) {
        now = queue.due();
        EXPECT_TRUE(drain(0).empty());
    }
    EXPECT_GT(queue.due() - now, first * 8);
    EXPECT_LT(queue.due() - now, Duration{50'000});
    EXPECT_TRUE(drain(9).empty()) << "not before its time";
    now = queue.due();
    EXPECT_EQ(drain(1), (std::vector<int>{1}));
    EXPECT_EQ(queue.due() - now, first);
}

// A filter of the host takes exception to one frame: an equal one behind it shows that the wire has room.
TEST_F(SendQueueTest, WhatIsRefusedForItselfDoesNotHoldTheOthers)
{
    for (std::uint8_t i = 0; i < 4; ++i) push(i);
    std::vector<int> left;
    now = queue.due();
    EXPECT_TRUE(queue.drain(now, [&](const SendQueue::Entry& e) -> Result<SendResult> {
        if (e.frame->bytes[0] == 1) return SendResult::full;
        left.push_back(e.frame->bytes[0]);
        return SendResult::sent;
    }));
    EXPECT_EQ(left, (std::vector<int>{0, 2, 3}));
    EXPECT_EQ(queue.dropped(), 1u);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.bytes(), 0u);
}

// Room came up between two attempts: nothing is lost, and nothing leaves twice.
TEST_F(SendQueueTest, WhatFindsRoomAMomentLaterIsNotDropped)
{
    for (std::uint8_t i = 0; i < 4; ++i) push(i);
    std::vector<int> left;
    int calls = 0;
    now = queue.due();
    EXPECT_TRUE(queue.drain(now, [&](const SendQueue::Entry& e) -> Result<SendResult> {
        if (++calls == 1) return SendResult::full;
        left.push_back(e.frame->bytes[0]);
        return SendResult::sent;
    }));
    EXPECT_EQ(left, (std::vector<int>{1, 0, 2, 3}));
    EXPECT_EQ(queue.dropped(), 0u);
    EXPECT_TRUE(queue.empty());
}

// What can never leave, or may not any more, says nothing about room.
TEST_F(SendQueueTest, OneThatIsDroppedBehindItDoesNotCondemnTheFirst)
{
    push(0);
    push(1);
    now = queue.due();
    EXPECT_TRUE(queue.drain(now, [&](const SendQueue::Entry& e) -> Result<SendResult> {
        return e.frame->bytes[0] == 0 ? SendResult::full : SendResult::dropped;
    }));
    EXPECT_EQ(queue.size(), 1u);
    EXPECT_EQ(queue.dropped(), 0u);
}

TEST_F(SendQueueTest, WhatIsRefusedWhereOnlySmallerOnesFitIsNotDropped)
{
    push(0, 300);
    for (std::uint8_t i = 1; i < 4; ++i) push(i, 10);
    now = queue.due();
    EXPECT_TRUE(queue.drain(now, [](const SendQueue::Entry& e) -> Result<SendResult> {
        return e.frame->bytes.size() > 100 ? SendResult::full : SendResult::sent;
    }));
    EXPECT_EQ(queue.size(), 4u);
    EXPECT_EQ(queue.dropped(), 0u);
}

TEST_F(SendQueueTest, WhatIsAlwaysRefusedDoesNotHoldTheOthersForEver)
{
    push(0, 200);  // and nothing of its size shows whether there is room
    for (std::uint8_t i = 1; i < 4; ++i) push(i);
    std::vector<int> left;
    const Time end = now + Duration{100'000};
    while (!queue.empty() && now < end) {
        now = queue.due();
        EXPECT_TRUE(queue.drain(now, [&](const SendQueue::Entry& e) -> Result<SendResult> {
            if (e.frame->bytes[0] == 0) return SendResult::full;
            left.push_back(e.frame->bytes[0]);
            return SendResult::sent;
        }));
        EXPECT_TRUE(left.empty() || now - Time{1'000'000} >= Duration{10'000});
    }
    EXPECT_EQ(left, (std::vector<int>{1, 2, 3}));
    EXPECT_EQ(queue.dropped(), 1u);
}

TEST_F(SendQueueTest, AnErrorEmptiesIt)
{
    push(1);
    push(2);
    now = queue.due();
    EXPECT_FALSE(queue.drain(
        now, [](const SendQueue::Entry&) -> Result<SendResult> { return make_error(Errc::failed, "gone"); }));
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.dropped(), 2u);
}

}  // namespace
}  // namespace colo::proxy
