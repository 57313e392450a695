// SPDX-License-Identifier: Apache-2.0
// Who asks the arbiter first: real ARP over a veth pair, in a network namespace of this process.
#include "colo/client_reach.h"
#include "core/clock.h"
#include "proxy/packet.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace colo {
namespace {

using proxy::Client;
using proxy::RecentClients;
using Mac = std::array<std::uint8_t, 6>;

constexpr Mac kClientMac{2, 0, 0, 0, 0, 7};
constexpr std::uint32_t kClientIp = 0x0a090002;  // 10.9.0.2

Bytes frame(std::uint16_t type, const Mac& source, std::size_t body)
{
    Bytes bytes(proxy::kVnetHeaderSize + proxy::kEthernetHeaderSize + body);
    std::memcpy(bytes.data() + proxy::kVnetHeaderSize + 6, source.data(), 6);
    proxy::store_be16(bytes.data() + proxy::kVnetHeaderSize + 12, type);
    return bytes;
}
Bytes ip4_frame(std::uint32_t ip, const Mac& mac)
{
    Bytes bytes = frame(proxy::kEtherTypeIpv4, mac, 20);
    proxy::store_be32(bytes.data() + proxy::kVnetHeaderSize + proxy::kEthernetHeaderSize + 12, ip);
    return bytes;
}
Bytes arp_frame(std::uint32_t ip, const Mac& mac)
{
    Bytes bytes = frame(proxy::kEtherTypeArp, Mac{2, 9, 9, 9, 9, 9}, 28);
    std::memcpy(bytes.data() + proxy::kVnetHeaderSize + proxy::kEthernetHeaderSize + 8, mac.data(), 6);
    proxy::store_be32(bytes.data() + proxy::kVnetHeaderSize + proxy::kEthernetHeaderSize + 14, ip);
    return bytes;
}

TEST(RecentClients, LatestFirstAndWhoNamedItselfBeforeMereSources)
{
    RecentClients clients;
    clients.saw(0, ip4_frame(1, {2, 0, 0, 0, 0, 1}));
    clients.saw(0, ip4_frame(3, {2, 0, 0, 0, 0, 4}));
    clients.saw(1, arp_frame(2, {2, 0, 0, 0, 0, 2}));
    ASSERT_EQ(clients.list().size(), 3u);
    EXPECT_EQ(clients.list()[0], (Client{1, 2, {2, 0, 0, 0, 0, 2}}));
    EXPECT_EQ(clients.list()[1], (Client{0, 3, {2, 0, 0, 0, 0, 4}}));
    clients.saw(0, ip4_frame(1, {2, 0, 0, 0, 0, 3}));  // moved to another card
    ASSERT_EQ(clients.list().size(), 3u);
    EXPECT_EQ(clients.list()[1], (Client{0, 1, {2, 0, 0, 0, 0, 3}}));
}

// Many far addresses behind a router do not push out the router itself, which alone can answer.
TEST(RecentClients, BoundedAndDeafToWhatIsNoStation)
{
    RecentClients clients;
    clients.saw(0, {});
    clients.saw(0, ip4_frame(0, kClientMac));                    // no address yet
    clients.saw(0, ip4_frame(5, {1, 0, 0, 0, 0, 1}));            // a group as source
    clients.saw(0, frame(proxy::kEtherTypeIpv6, kClientMac, 40));
    const Bytes whole = arp_frame(kClientIp, kClientMac);
    for (std::size_t size = 0; size < whole.size(); ++size) clients.saw(0, ByteView(whole).first(size));
    EXPECT_TRUE(clients.list().empty());
    clients.saw(0, whole);
    for (std::uint32_t ip = 1; ip <= 100; ++ip) clients.saw(0, ip4_frame(ip, kClientMac));
    const std::vector<Client> list = clients.list();
    ASSERT_EQ(list.size(), 1 + RecentClients::kMaxSeen);
    EXPECT_EQ(list.front().ip4, kClientIp);
    EXPECT_EQ(list[1].ip4, 100u);
    for (std::uint32_t ip = 1; ip <= 100; ++ip) clients.saw(0, arp_frame(1000 + ip, kClientMac));
    EXPECT_EQ(clients.list().size(), RecentClients::kMaxNamed + RecentClients::kMaxSeen);
}

TEST(RecentClients, OnlyWhatIsSaidToTheGuestByOthers)
{
    constexpr Mac kGuest{2, 0, 0, 0, 0, 0x11}, kHost{2, 0, 0, 0, 0, 0x22}, kEverybody{255, 255, 255, 255, 255, 255};
    const auto said = [&](const Mac& to, const Mac& from) {
        Bytes bytes = ip4_frame(1, from);
        std::memcpy(bytes.data() + proxy::kVnetHeaderSize, to.data(), 6);
        return proxy::from_client(bytes, kGuest, kHost);
    };
    EXPECT_TRUE(said(kGuest, kClientMac));
    EXPECT_FALSE(said(kEverybody, kClientMac)) << "a host hears the broadcasts of its own bridge";
    EXPECT_FALSE(said(kClientMac, kGuest));
    EXPECT_FALSE(said(kGuest, kHost)) << "the host itself";
    EXPECT_FALSE(said(kGuest, kGuest)) << "an old primary";
    EXPECT_FALSE(proxy::from_client({}, kGuest, kHost));
}

TEST(UnreachedWait, ACutOffPrimaryAsksAfterASecondaryWithBothArbiters)
{
    constexpr Duration kDelay{200'000}, kFence{2'000'000}, kNone{0};
    for (const Duration fence : {kNone, kFence})
        EXPECT_GT(unreached_wait(Role::primary, kDelay, fence), fence + unreached_wait(Role::secondary, kDelay, fence));
    EXPECT_EQ(unreached_wait(Role::primary, kNone, kFence), kNone);
    EXPECT_EQ(unreached_wait(Role::secondary, kNone, kFence), kNone);
}

class ClientReach : public ::testing::Test {
protected:
    void SetUp() override
    {
        if (::geteuid() != 0) GTEST_SKIP() << "needs root: network namespaces";
        if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN: a network namespace of its own";
        command("ip link add host0 type veth peer name client0");
        command("ip link set client0 address 02:00:00:00:00:07");
        command("ip addr add 10.9.0.2/24 dev client0");
        command("ip link set host0 up && ip link set client0 up");
        question_.role = Role::primary;
        question_.limit = Duration{20'000'000};  // of those that something else must end
        question_.clients = {{0, kClientIp, kClientMac}};
        question_.interfaces = {"host0"};
        question_.last_heard = [] { return Time{0}; };
        question_.wanted = [] { return true; };
    }
    static void command(const std::string& text)
    {
        ASSERT_EQ(std::system((text + " >/dev/null 2>&1").c_str()), 0) << text;
    }
    ReachQuestion question_;
};

TEST_F(ClientReach, ClientThatAnswersEndsTheWait)
{
    const ReachAnswer answer = seek_clients(question_);
    EXPECT_TRUE(answer.reached) << answer.text;
    EXPECT_NE(answer.text.find("a client answers"), std::string::npos) << answer.text;
    EXPECT_LT(answer.took, question_.limit);
}

TEST_F(ClientReach, WhoIsCutOffWaitsForItsWholeLimit)
{
    command("ip addr flush dev client0");
    question_.limit = Duration{100'000};
    for (const Role role : {Role::primary, Role::secondary}) {
        question_.role = role;
        const ReachAnswer answer = seek_clients(question_);
        EXPECT_FALSE(answer.reached);
        EXPECT_GE(answer.took, question_.limit);
        EXPECT_NE(answer.text.find("no client is heard"), std::string::npos) << answer.text;
    }
}

TEST_F(ClientReach, AnswerForAnotherAddressIsNone)
{
    // The same card answers for another address than the one that is asked for.
    command("ip addr flush dev client0");
    command("ip addr add 10.9.0.3/24 dev client0");
    auto probe = proxy::ArpProbe::open("host0");
    ASSERT_TRUE(probe) << probe.error().text;
    const Client other{0, kClientIp + 1, kClientMac};
    const auto answers = [&](const Client& looked_for) {
        for (int i = 0; i < 50; ++i) {
            EXPECT_TRUE(probe->ask(other));
            ::usleep(10'000);
            if (probe->answered({looked_for})) return true;
        }
        return false;
    };
    EXPECT_TRUE(answers(other));
    EXPECT_FALSE(answers(question_.clients[0]));
}

TEST_F(ClientReach, TrafficCountsWithoutAProbe)
{
    command("ip addr flush dev client0");
    question_.last_heard = [] { return now(); };
    EXPECT_EQ(seek_clients(question_).text, "clients are heard");
    // Heard before the loss, silent for a moment, and heard again while it waits.
    question_.last_heard = [begun = now(), calls = 0]() mutable { return ++calls < 5 ? begun - Duration{60'000} : now(); };
    const ReachAnswer answer = seek_clients(question_);
    EXPECT_TRUE(answer.reached);
    EXPECT_NE(answer.text.find("a client is heard"), std::string::npos) << answer.text;
}

TEST_F(ClientReach, NobodyToAskMeansNoWait)
{
    question_.interfaces = {""};
    EXPECT_TRUE(seek_clients(question_).text.empty()) << "nowhere to ask";
    question_.interfaces = {"host0"};
    question_.clients.clear();
    EXPECT_TRUE(seek_clients(question_).text.empty());
    question_.clients = {{0, kClientIp, kClientMac}};
    question_.limit = Duration{0};
    EXPECT_TRUE(seek_clients(question_).text.empty());
}

TEST_F(ClientReach, EndsWhenTheAnswerIsNoLongerWanted)
{
    command("ip addr flush dev client0");
    question_.limit = Duration{60'000'000};
    question_.wanted = [calls = 0]() mutable { return ++calls < 5; };
    EXPECT_LT(seek_clients(question_).took, Duration{30'000'000});
}

TEST_F(ClientReach, InterfaceThatIsGoneAnswersNothing)
{
    question_.interfaces = {"nosuch0"};
    question_.limit = Duration{20'000};
    question_.role = Role::secondary;
    EXPECT_FALSE(seek_clients(question_).reached);
    question_.clients = {{7, kClientIp, kClientMac}};  // a NIC that is not there
    EXPECT_FALSE(seek_clients(question_).reached);
}

}  // namespace
}  // namespace colo
