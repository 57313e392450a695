// SPDX-License-Identifier: Apache-2.0
#pragma once

// A device model that does at once what it is told, writes down what that was, and fails where it is to; with states that look
// like real ones.

#include "xen/device_model.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

namespace colo::test {

using Trace = std::vector<std::string>;

inline Bytes model_state() { return {'Q', 'E', 'V', 'M', 0, 0, 0, 3, 4, 1, 2, 3, 0}; }

inline void add_record(Bytes& out, std::uint16_t type, const Bytes& data)
{
    const auto length = static_cast<std::uint32_t>(data.size());
    const std::size_t at = out.size();
    out.resize(at + 8 + data.size());
    std::memcpy(&out[at], &type, sizeof type);
    std::memcpy(&out[at + 4], &length, sizeof length);
    std::copy(data.begin(), data.end(), out.begin() + static_cast<std::ptrdiff_t>(at + 8));
}

inline Bytes cpu_context(std::uint8_t fill = 7)
{
    Bytes out;
    add_record(out, 1, {0x86, 0x12, 0x38, 0x54, 1, 0, 0, 0});
    add_record(out, 2, Bytes(100, fill));
    add_record(out, 10, Bytes(3, 1));
    add_record(out, 0, {});
    return out;
}

class FakeModel final : public xen::DeviceModel {
public:
    // `mutex`: of the trace, where others write into it, too.
    explicit FakeModel(Trace& trace, std::recursive_mutex* mutex = nullptr) : trace_(trace), mutex_(mutex) {}
    std::string fail_at;
    Bytes state = model_state();
    Bytes loaded;
    bool log_on = false;
    bool saving = false;

    const std::string& version() const override { return version_; }
    Result<void> stop(Deadline) override { return step("model-stop"); }
    Result<void> cont(Deadline) override { return step("model-cont"); }
    Result<void> stop_and_begin_save(Deadline) override
    {
        saving = true;
        return step("model-stop-and-save");
    }
    Result<Bytes> finish_save(Deadline) override
    {
        saving = false;
        if (auto r = step("model-saved"); !r) return r.error();
        return state;
    }
    Result<void> load(ByteView bytes, Deadline) override
    {
        loaded.assign(bytes.begin(), bytes.end());
        return step("model-load");
    }
    Result<void> set_dirty_log(bool on, Deadline) override
    {
        if (saving) return make_error(Errc::invalid, "a save was begun and not finished");
        auto r = step("model-log");
        if (r) log_on = on;
        return r;
    }
    Result<void> connect_cable(std::size_t, int, Deadline) override { return step("model-cable"); }
    Result<void> save_to(const std::string&, bool, Deadline) override { return step("model-save-to"); }
    Result<void> powerdown(Deadline) override { return step("model-powerdown"); }

private:
    Result<void> step(const std::string& name)
    {
        std::unique_lock<std::recursive_mutex> lock;
        if (mutex_ != nullptr) lock = std::unique_lock(*mutex_);
        trace_.push_back(name);
        if (name == fail_at) return make_error(Errc::closed, name + ": the channel is dead");
        return {};
    }
    Trace& trace_;
    std::recursive_mutex* mutex_;
    std::string version_ = "7.2";
};

}  // namespace colo::test
