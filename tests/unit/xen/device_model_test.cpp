// SPDX-License-Identifier: Apache-2.0
// The device model's client against a socket on which somebody answers as QEMU does, or does not.
#include "core/clock.h"
#include "xen/device_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace colo::xen {
namespace {

Deadline soon(int ms = 5000) { return now() + std::chrono::milliseconds(ms); }

Bytes state_bytes(std::size_t size = 100)
{
    Bytes out(size, 0x11);
    const Bytes head = {'Q', 'E', 'V', 'M', 0, 0, 0, 3, 4};
    std::copy(head.begin(), head.end(), out.begin());
    out.back() = 0;
    return out;
}

// Serves one client at a time, as QEMU does.
class Monitor {
public:
    Monitor()
    {
        path = testing::TempDir() + "monitor-" + std::to_string(::getpid());
        ::unlink(path.c_str());
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(listener_, 1), 0);
        thread_ = std::thread([this] { serve(); });
    }
    ~Monitor()
    {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
        ::unlink(path.c_str());
    }

    // What it does and has seen; `look` is called with nobody else at it.
    struct Behaviour {
        Bytes saved = state_bytes();         // what a save writes
        std::string refuse;                  // the command that gets an error
        std::string hang_up_at;              // the command at which the process dies
        std::string job_error;               // of the load
        std::vector<std::string> commands;
        Bytes loaded;                        // what was in the snapshot at the load
    };
    template <class Look>
    auto with(Look&& look)
    {
        const std::lock_guard lock(mutex_);
        return look(behaviour_);
    }
    std::string path;

private:
    void serve()
    {
        for (;;) {
            const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (client < 0) return;
            say(client, R"({"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7},"package":"Debian"},"capabilities":[]}})");
            converse(client);
            ::close(client);
        }
    }
    static void say(int client, const std::string& text)
    {
        const std::string line = text + "\r\n";
        (void)::send(client, line.data(), line.size(), MSG_NOSIGNAL);
    }
    void converse(int client)
    {
        std::string text;
        char buffer[4096];
        int depth = 0;
        for (ssize_t n; (n = ::recv(client, buffer, sizeof buffer, 0)) > 0;)
            for (ssize_t i = 0; i < n; ++i) {   // commands come without line ends
                text += buffer[i];
                depth += buffer[i] == '{' ? 1 : buffer[i] == '}' ? -1 : 0;
                if (depth != 0 || buffer[i] != '}') continue;
                if (!obey(client, std::exchange(text, {}))) return;
            }
    }
    static std::string member(const std::string& text, const std::string& key)
    {
        const std::string quoted = "\"" + key + "\":\"";
        const auto at = text.find(quoted);
        return at == std::string::npos ? "" : text.substr(at + quoted.size(), text.find('"', at + quoted.size()) - at - quoted.size());
    }
    bool obey(int client, const std::string& text)
    {
        const std::lock_guard lock(mutex_);
        Behaviour& b = behaviour_;
        const std::string name = member(text, "execute");
        b.commands.push_back(name);
        if (name == b.hang_up_at) return false;
        say(client, R"({"event":"SOMETHING","timestamp":{}})");
        if (name == b.refuse) {
            say(client, R"({"error":{"class":"GenericError","desc":"no"}})");
            return true;
        }
        if (name == "xen-save-devices-state") {
            std::ofstream file(member(text, "filename"), std::ios::binary | std::ios::trunc);
            file.write(reinterpret_cast<const char*>(b.saved.data()), static_cast<std::streamsize>(b.saved.size()));
        }
        if (name == "blockdev-add") image_ = member(text, "filename");
        if (name == "query-jobs") {
            const std::string error = b.job_error.empty() ? "" : R"(,"error":")" + b.job_error + "\"";
            say(client, R"({"return":[{"id":"other","error":"x"},{"id":")" + job_ + R"(","status":"concluded")" + error + "}]}");
            return true;
        }
        say(client, R"({"return":{}})");
        if (name == "snapshot-load") {
            job_ = member(text, "job-id");
            look_into_image();
            for (const char* status : {"created", "running", "concluded"})
                say(client, R"({"event":"JOB_STATUS_CHANGE","data":{"status":")" + std::string(status) + R"(","id":")" + job_ + "\"}}");
        }
        return true;
    }
    void look_into_image()
    {
        std::ifstream file(image_, std::ios::binary);
        file.seekg(7 * 65536);   // where the image's VM state begins
        behaviour_.loaded.resize(behaviour_.saved.size());
        file.read(reinterpret_cast<char*>(behaviour_.loaded.data()), static_cast<std::streamsize>(behaviour_.loaded.size()));
    }

    std::mutex mutex_;
    Behaviour behaviour_;
    int listener_ = -1;
    std::thread thread_;
    std::string image_, job_;
};

std::unique_ptr<DeviceModel> connect(const Monitor& monitor)
{
    auto model = connect_device_model(monitor.path, soon());
    EXPECT_TRUE(model) << model.error().text;
    return model ? std::move(*model) : nullptr;
}

TEST(DeviceModel, SavesWhileItStops)
{
    Monitor monitor;
    const auto model = connect(monitor);
    EXPECT_EQ(model->version(), "7.2.22 (Debian)");
    for (const std::size_t size : {100u, 60u, 5000u}) {
        monitor.with([&](auto& b) { b.saved = state_bytes(size); });
        ASSERT_TRUE(model->stop_and_begin_save(soon()));
        EXPECT_EQ(model->cont(soon()).error().code, Errc::invalid);   // a save is owed
        const auto state = model->finish_save(soon());
        ASSERT_TRUE(state) << state.error().text;
        EXPECT_EQ(*state, state_bytes(size));
        ASSERT_TRUE(model->cont(soon()));
    }
    EXPECT_EQ(model->finish_save(soon()).error().code, Errc::invalid);
}

TEST(DeviceModel, LoadsThroughASnapshotAsOftenAsWanted)
{
    Monitor monitor;
    {
        const auto model = connect(monitor);
        ASSERT_TRUE(model->stop(soon()));
        for (int i = 0; i < 2; ++i) {
            Bytes state = state_bytes();
            state[20] = static_cast<std::uint8_t>(i);
            const auto loaded = model->load(state, soon());
            ASSERT_TRUE(loaded) << loaded.error().text;
            EXPECT_EQ(monitor.with([](auto& b) { return b.loaded; }), state);
        }
        ASSERT_TRUE(model->cont(soon()));
    }
    EXPECT_EQ(monitor.with([](auto& b) { return b.commands; }),
              (std::vector<std::string>{"qmp_capabilities", "stop", "blockdev-add", "snapshot-load", "query-jobs", "job-dismiss",
                                                          "snapshot-load", "query-jobs", "job-dismiss", "cont", "blockdev-del"}));
}

TEST(DeviceModel, LoadThatFailedSaysWhy)
{
    Monitor monitor;
    const auto model = connect(monitor);
    monitor.with([](auto& b) { b.job_error = "cannot load section"; });
    const auto loaded = model->load(state_bytes(), soon());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, Errc::refused);
    EXPECT_NE(loaded.error().text.find("cannot load section"), std::string::npos) << loaded.error().text;
    Bytes bad = state_bytes();
    bad[0] = 0;
    EXPECT_EQ(model->load(bad, soon()).error().code, Errc::corrupt);
}

TEST(DeviceModel, StateThatIsNoneIsCorrupt)
{
    Monitor monitor;
    const auto model = connect(monitor);
    monitor.with([](auto& b) { b.saved = Bytes(100, 0); });
    ASSERT_TRUE(model->stop_and_begin_save(soon()));
    EXPECT_EQ(model->finish_save(soon()).error().code, Errc::corrupt);
    EXPECT_FALSE(check_model_state({}));
    Bytes open = state_bytes();
    open.back() = 1;
    EXPECT_FALSE(check_model_state(open));
    EXPECT_EQ(check_model_state(Bytes((16u << 20) + 1)).error().code, Errc::limit);
}

TEST(DeviceModel, RefusalOfEachStepKeepsTheChannelInOrder)
{
    Monitor monitor;
    const auto model = connect(monitor);
    monitor.with([](auto& b) { b.refuse = "xen-set-global-dirty-log"; });
    EXPECT_EQ(model->set_dirty_log(true, soon()).error().code, Errc::refused);
    monitor.with([](auto& b) { b.refuse = "stop"; });
    EXPECT_EQ(model->stop_and_begin_save(soon()).error().code, Errc::refused);
    EXPECT_TRUE(model->finish_save(soon()));
    monitor.with([](auto& b) { b.refuse = "xen-save-devices-state"; });
    ASSERT_TRUE(model->stop_and_begin_save(soon()));
    EXPECT_EQ(model->finish_save(soon()).error().code, Errc::refused);
    monitor.with([](auto& b) { b.refuse.clear(); });
    EXPECT_TRUE(model->set_dirty_log(false, soon()));
}

// Its QEMU dies of switching off what is off.
TEST(DeviceModel, DirtyLogIsSwitchedOffOnlyBehindOn)
{
    Monitor monitor;
    const auto model = connect(monitor);
    monitor.with([](auto& b) { b.commands.clear(); });
    ASSERT_TRUE(model->set_dirty_log(false, soon()));
    EXPECT_EQ(monitor.with([](auto& b) { return b.commands.size(); }), 2u);
}

TEST(DeviceModel, DeathInTheMiddle)
{
    Monitor monitor;
    const auto model = connect(monitor);
    monitor.with([](auto& b) { b.hang_up_at = "snapshot-load"; });
    EXPECT_EQ(model->load(state_bytes(), soon()).error().code, Errc::closed);
    EXPECT_FALSE(model->cont(soon()));
}

TEST(DeviceModel, NobodyOrABusySocket)
{
    const auto nobody = connect_device_model(testing::TempDir() + "no-such-socket", soon());
    ASSERT_FALSE(nobody);
    EXPECT_EQ(nobody.error().code, Errc::guest_died);
    EXPECT_EQ(connect_device_model(std::string(200, 'x'), soon()).error().code, Errc::invalid);
    Monitor monitor;
    const auto first = connect(monitor);
    const auto second = connect_device_model(monitor.path, soon(100));
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::timed_out);
    EXPECT_NE(second.error().text.find("second colod"), std::string::npos) << second.error().text;
}

}  // namespace
}  // namespace colo::xen
