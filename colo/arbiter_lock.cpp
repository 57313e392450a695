// SPDX-License-Identifier: Apache-2.0
#include "colo/arbiter_lock.h"

#include "colo/channel.h"
#include "core/clock.h"
#include "core/crc32c.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace colo {
namespace {

constexpr const char* kDirectoryIdName = ".colo-directory-id";
constexpr std::size_t kLockFileMax = 4096;

std::string with_checksum(std::string text)
{
    const std::uint32_t crc = crc32c({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    return text + fmt::format("crc32c {:08x}\n", crc);
}

// Text before the checksum line, or nothing if it is damaged.
std::optional<std::string> without_checksum(const std::string& text)
{
    const std::size_t at = text.rfind("crc32c ");
    if (at == std::string::npos || text != with_checksum(text.substr(0, at))) return std::nullopt;
    return text.substr(0, at);
}

std::string random_hex()
{
    std::array<std::uint8_t, 16> random{};
    std::string text;
    if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) return text;
    for (const std::uint8_t byte : random) text += fmt::format("{:02x}", byte);
    return text;
}

struct FileRead {
    int err = 0;  // ENOENT: not there
    std::string text;
};

// Opened anew each time: NFS shows another host's file after open (close-to-open consistency).
FileRead read_file(int directory, const std::string& name)
{
    const Fd fd(openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd.valid()) return {errno, {}};
    FileRead result;
    std::array<char, kLockFileMax> buffer;
    for (;;) {
        const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return {errno, {}};
        if (got == 0) return result;
        result.text.append(buffer.data(), static_cast<std::size_t>(got));
        if (result.text.size() > kLockFileMax) return result;  // too long to be valid; judged as damaged
    }
}

// Makes `name` with `text` unless it exists. 0, or the errno of the step that failed. EEXIST is an answer like any
// other: the caller reads back what is there.
int link_new(int directory, const std::string& name, const std::string& text)
{
    const std::string unique = random_hex();
    if (unique.empty()) return EIO;
    const std::string temporary = "." + name + "." + unique + ".tmp";
    Fd fd(openat(directory, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd.valid()) return errno;
    int err = 0;
    const ssize_t written = write(fd.get(), text.data(), text.size());
    if (written != static_cast<ssize_t>(text.size())) err = written < 0 ? errno : ENOSPC;
    if (err == 0 && fsync(fd.get()) != 0) err = errno;
    if (close(fd.release()) != 0 && err == 0) err = errno;
    if (err == 0 && linkat(directory, temporary.c_str(), directory, name.c_str(), 0) != 0) err = errno;
    unlinkat(directory, temporary.c_str(), 0);
    return err;
}

// Everything one operation needs, by value: it may outlive the arbiter when the storage hangs.
struct LockSite {
    std::string directory, domain_uuid, host_id;

    std::string name_of(Generation generation) const { return domain_uuid + "." + std::to_string(generation); }
    std::string path_of(Generation generation) const { return directory + "/" + name_of(generation); }
    Result<Fd> open_directory() const
    {
        Fd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fd.valid()) return errno_error("open " + directory, errno);
        return fd;
    }
    std::string contents(const GrantRequest& request) const
    {
        std::array<char, 256> host{};
        if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
        return with_checksum(fmt::format("colo-lock 1\ndomain {}\ngeneration {}\nowner {}\nrole {}\nhost {}\n",
                                         domain_uuid, request.generation, host_id,
                                         request.role == Role::primary ? "primary" : "secondary", host.data()));
    }
    Observation judge(const FileRead& file, Generation generation) const;
};

std::string value_of(const std::string& text, const std::string& key)
{
    const std::size_t at = text.find("\n" + key + " ");
    if (at == std::string::npos) return {};
    const std::size_t begin = at + key.size() + 2;
    return text.substr(begin, text.find('\n', begin) - begin);
}

Observation LockSite::judge(const FileRead& file, Generation generation) const
{
    using State = Observation::State;
    if (file.err == ENOENT) return {State::free, "nobody holds generation " + std::to_string(generation)};
    if (file.err != 0) return {State::unknown, errno_error("read " + path_of(generation), file.err).text};
    const auto text = without_checksum(file.text);
    if (!text || value_of(*text, "domain") != domain_uuid ||
        value_of(*text, "generation") != std::to_string(generation))
        return {State::unknown, path_of(generation) + " is damaged; only the operator can tell who made it"};
    const std::string owner = value_of(*text, "owner");
    const std::string who =
        "generation " + std::to_string(generation) + " is held by " + value_of(*text, "host") + " (" + owner + ")";
    return {owner == host_id ? State::ours : State::theirs, who};
}

GrantResult take(const LockSite& site, const GrantRequest& request)
{
    const auto directory = site.open_directory();
    if (!directory) return {GrantOutcome::unknown, directory.error().text};
    const std::string name = site.name_of(request.generation);
    Observation found = site.judge(read_file(directory->get(), name), request.generation);
    int err = 0;
    if (found.state == Observation::State::free) {
        err = link_new(directory->get(), name, site.contents(request));
        found = site.judge(read_file(directory->get(), name), request.generation);
    }
    switch (found.state) {
    case Observation::State::ours:
        // Ours only when it cannot be undone by a power loss of the storage.
        if (fsync(directory->get()) != 0)
            return {GrantOutcome::unknown, errno_error("fsync " + site.directory, errno).text};
        return {GrantOutcome::granted, found.detail};
    case Observation::State::theirs: return {GrantOutcome::refused, found.detail};
    case Observation::State::free:
        return {GrantOutcome::unknown,
                errno_error("make " + site.path_of(request.generation), err != 0 ? err : EIO).text};
    case Observation::State::unknown: break;
    }
    return {GrantOutcome::unknown, found.detail};
}

Observation look(const LockSite& site, Generation generation)
{
    const auto directory = site.open_directory();
    if (!directory) return {Observation::State::unknown, directory.error().text};
    return site.judge(read_file(directory->get(), site.name_of(generation)), generation);
}

// Both hosts must see the same directory, not two of the same name: it gets an identity the first time it is used.
Result<std::string> directory_id(const LockSite& site)
{
    const auto directory = site.open_directory();
    if (!directory) return directory.error();
    FileRead file = read_file(directory->get(), kDirectoryIdName);
    if (file.err == ENOENT) {
        const int err = link_new(directory->get(), kDirectoryIdName,
                                 with_checksum("colo-lock-directory 1\nid " + random_hex() + "\n"));
        if (err != 0 && err != EEXIST) return errno_error("make " + site.directory + "/" + kDirectoryIdName, err);
        if (fsync(directory->get()) != 0) return errno_error("fsync " + site.directory, errno);
        file = read_file(directory->get(), kDirectoryIdName);
    }
    if (file.err != 0) return errno_error("read " + site.directory + "/" + kDirectoryIdName, file.err);
    const auto text = without_checksum(file.text);
    const std::string id = text ? value_of(*text, "id") : std::string{};
    if (id.size() != 32)
        return make_error(Errc::corrupt, site.directory + "/" + kDirectoryIdName +
                                             " is damaged; remove it while no domain is protected");
    return id;
}

class LockArbiter final : public Arbiter {
public:
    explicit LockArbiter(const ArbiterSettings& settings)
        : site_{settings.directory, settings.domain_uuid, settings.host_id}, timeout_(settings.timeout)
    {
    }
    ArbiterKind kind() const override { return ArbiterKind::lock; }
    Result<std::string> settings_digest(Deadline deadline) override
    {
        if (!id_.empty()) return id_;
        auto id = bounded<Result<std::string>>([site = site_] { return directory_id(site); },
                                               make_error(Errc::timed_out, late()), deadline);
        if (id) id_ = "lock:" + *id;
        return id ? Result<std::string>(id_) : id;
    }
    GrantResult request(const GrantRequest& request, Deadline deadline) override
    {
        {
            const std::lock_guard lock(shared_->mutex);
            shared_->cancelled = false;
        }
        return bounded<GrantResult>([site = site_, request] { return take(site, request); },
                                    {GrantOutcome::unknown, late()}, deadline);
    }
    Observation observe(Generation generation, Deadline deadline) override
    {
        return bounded<Observation>([site = site_, generation] { return look(site, generation); },
                                    {Observation::State::unknown, late()}, deadline);
    }
    void cancel() override
    {
        const std::lock_guard lock(shared_->mutex);
        shared_->cancelled = true;
        shared_->changed.notify_all();
    }

private:
    struct Shared {
        std::mutex mutex;
        std::condition_variable changed;
        bool busy = false;  // a thread is in the file system, maybe for ever
        bool cancelled = false;
    };

    std::string late() const { return "the storage of " + site_.directory + " does not answer"; }

    // Runs `work` in a thread that is left behind if it is late; at most one such thread exists.
    template <class T>
    T bounded(std::function<T()> work, T otherwise, Deadline deadline)
    {
        deadline = std::min(deadline, now() + timeout_);
        const auto shared = shared_;
        std::unique_lock lock(shared->mutex);
        const auto wait = [&](const std::function<bool()>& done) {
            while (!done()) {
                const int wait_ms = poll_timeout_ms(deadline);
                if (wait_ms == 0 || shared->cancelled) return false;
                shared->changed.wait_for(lock, std::chrono::milliseconds(wait_ms));
            }
            return true;
        };
        if (!wait([&] { return !shared->busy; })) return otherwise;
        shared->busy = true;
        const auto result = std::make_shared<std::optional<T>>();
        std::thread([shared, result, work = std::move(work)] {
            std::optional<T> value(work());
            const std::lock_guard guard(shared->mutex);
            *result = std::move(value);
            shared->busy = false;
            shared->changed.notify_all();
        }).detach();
        if (!wait([&] { return result->has_value(); })) return otherwise;
        return std::move(**result);
    }

    const LockSite site_;
    const Duration timeout_;
    std::string id_;
    const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace

Result<std::unique_ptr<Arbiter>> make_lock_arbiter(const ArbiterSettings& settings)
{
    if (settings.directory.empty() || settings.directory.front() != '/')
        return make_error(Errc::invalid, "arbiter lock: the directory must be an absolute path");
    if (settings.domain_uuid.size() != 36 || settings.domain_uuid.find('/') != std::string::npos)
        return make_error(Errc::invalid, "arbiter lock: the domain's UUID is needed");
    if (settings.host_id.empty() || settings.host_id.find_first_of(" \n") != std::string::npos)
        return make_error(Errc::invalid, "arbiter lock: an identity of this host is needed");
    return std::unique_ptr<Arbiter>(std::make_unique<LockArbiter>(settings));
}

}  // namespace colo
