// SPDX-License-Identifier: Apache-2.0
#include "colo/state_file.h"

#include "colo/channel.h"
#include "core/check.h"
#include "core/crc32c.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <map>

namespace colo {
namespace {

constexpr int kFormat = 1;
constexpr std::size_t kFileMax = 64u << 10;
constexpr std::size_t kReasonMax = 1024;
constexpr const char* kStateName = "state";
constexpr const char* kHostIdName = "host-id";
constexpr std::string_view kTemporaryPrefix = ".state.";

struct RoleName {
    Role role;
    std::string_view text;
};
constexpr RoleName kRoles[] = {{Role::none, "none"}, {Role::primary, "primary"}, {Role::secondary, "secondary"}};

std::string checksum_line(std::string_view text)
{
    const std::uint32_t crc = crc32c({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    return fmt::format("crc32c {:08x}\n", crc);
}

// A reason is for people and must stay on its line.
std::string one_line(std::string text)
{
    text.resize(std::min(text.size(), kReasonMax));
    for (char& c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    return text;
}

Error corrupt(const std::string& what)
{
    return make_error(Errc::corrupt,
                      what +
                          ". If the peer runs the domain, move the file away and protect the domain again "
                          "from there; if this host had the newest state, restore the file from a backup");
}

Result<void> write_whole(int fd, std::string_view text, const std::string& what)
{
    while (!text.empty()) {
        const ssize_t written = write(fd, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno_error("write " + what, errno);
        text.remove_prefix(static_cast<std::size_t>(written));
    }
    return {};
}

Result<std::string> read_whole(int directory_fd, const char* name, const std::string& what)
{
    const Fd fd(openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!fd.valid()) return errno_error("open " + what, errno);
    std::string text(kFileMax + 1, '\0');
    std::size_t size = 0;
    while (size < text.size()) {
        const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno_error("read " + what, errno);
        if (got == 0) break;
        size += static_cast<std::size_t>(got);
    }
    if (size > kFileMax) return corrupt(what + " is longer than 64 KiB, which no state file is");
    text.resize(size);
    return text;
}

bool exists(int directory_fd, const char* name)
{
    struct stat info {};
    return fstatat(directory_fd, name, &info, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

// The steps whose order makes it crash-safe: contents on disk before the name, the name on disk before we say so.
Result<void> replace_file(int directory_fd, const char* name, std::string_view text, const std::string& directory)
{
    static std::atomic<unsigned> counter{0};
    const std::string temporary = fmt::format("{}{}.{}.{}", kTemporaryPrefix, name, getpid(), counter++);
    const std::string what = directory + "/" + name;
    const auto give_up = [&](Error error) {
        unlinkat(directory_fd, temporary.c_str(), 0);
        return error;
    };
    Fd fd(openat(directory_fd, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) return errno_error("create " + directory + "/" + temporary, errno);
    if (auto written = write_whole(fd.get(), text, what); !written) return give_up(written.error());
    if (fsync(fd.get()) != 0) return give_up(errno_error("fsync " + what, errno));
    if (close(fd.release()) != 0) return give_up(errno_error("close " + what, errno));
    if (renameat(directory_fd, temporary.c_str(), directory_fd, name) != 0)
        return give_up(errno_error("rename to " + what, errno));
    if (fsync(directory_fd) != 0) return errno_error("fsync " + directory, errno);
    return {};
}

template <class T>
bool parse_number(std::string_view text, T& value)
{
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    return !text.empty() && status == std::errc{} && end == text.data() + text.size();
}

bool parse_flag(std::string_view text, bool& value)
{
    if (text != "yes" && text != "no") return false;
    value = text == "yes";
    return true;
}

bool set_field(PersistentState& state, std::string_view key, std::string_view value)
{
    if (key == "domain") return state.domain_uuid = value, value.size() == 36;
    if (key == "generation") return parse_number(value, state.generation);
    if (key == "session") return parse_number(value, state.session);
    if (key == "in-session") return parse_flag(value, state.in_session);
    if (key == "eligible") return parse_flag(value, state.eligible);
    if (key == "outdated") return parse_flag(value, state.outdated);
    if (key == "reason") return state.reason = value, true;
    if (key != "role") return false;
    for (const RoleName& each : kRoles)
        if (each.text == value) return state.role = each.role, true;
    return false;
}

constexpr std::string_view kKeys[] = {"domain",     "generation", "role",     "session",
                                      "in-session", "eligible",   "outdated", "reason"};

bool is_host_id(std::string_view text)
{
    return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string random_host_id()
{
    std::array<std::uint8_t, 16> random{};
    std::size_t filled = 0;
    while (filled < random.size()) {
        const ssize_t got = getrandom(random.data() + filled, random.size() - filled, 0);
        COLO_CHECK(got > 0 || errno == EINTR);  // up to 256 bytes cannot fail otherwise
        if (got > 0) filled += static_cast<std::size_t>(got);
    }
    std::string text;
    for (const std::uint8_t byte : random) text += fmt::format("{:02x}", byte);
    return text;
}

// A crash between create and rename leaves a temporary behind; it was never the state.
void remove_leftovers(int directory_fd)
{
    DIR* const directory = fdopendir(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory == nullptr) return;
    while (const dirent* const entry = readdir(directory))
        if (std::string_view(entry->d_name).starts_with(kTemporaryPrefix)) unlinkat(directory_fd, entry->d_name, 0);
    closedir(directory);
}

Result<void> make_directories(const std::string& path)
{
    for (std::size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
        const std::string part = path.substr(0, at);
        if (mkdir(part.c_str(), 0700) == 0) {
            // The name of a new directory must survive a power loss as well as what is stored in it.
            const Fd parent(::open(part.substr(0, std::max<std::size_t>(part.rfind('/'), 1)).c_str(),
                                   O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            if (!parent.valid() || fsync(parent.get()) != 0)
                return errno_error("fsync the directory above " + part, errno);
        } else if (errno != EEXIST) {
            return errno_error("create directory " + part, errno);
        }
        if (at == std::string::npos) return {};
    }
}

}  // namespace

std::string encode_state(const PersistentState& state)
{
    std::string_view role = "none";
    for (const RoleName& each : kRoles)
        if (each.role == state.role) role = each.text;
    const auto yes = [](bool value) { return value ? "yes" : "no"; };
    std::string text = fmt::format(
        "colo-state {}\ndomain {}\ngeneration {}\nrole {}\nsession {}\nin-session {}\neligible {}\noutdated {}\nreason "
        "{}\n",
        kFormat, state.domain_uuid, state.generation, role, state.session, yes(state.in_session), yes(state.eligible),
        yes(state.outdated), one_line(state.reason));
    return text + checksum_line(text);
}

Result<PersistentState> decode_state(std::string_view text)
{
    int format = 0;
    const std::size_t first_end = text.find('\n');
    constexpr std::string_view kMagic = "colo-state ";
    if (first_end == std::string_view::npos || !text.starts_with(kMagic) ||
        !parse_number(text.substr(kMagic.size(), first_end - kMagic.size()), format))
        return corrupt("the state file does not begin like one");
    const std::size_t checksum_at = text.rfind("crc32c ");
    if (checksum_at == std::string_view::npos || checksum_at == 0 || text[checksum_at - 1] != '\n')
        return corrupt("the state file is cut off");
    if (text.substr(checksum_at) != checksum_line(text.substr(0, checksum_at)))
        return corrupt("the checksum of the state file is wrong");
    // Judged after the checksum: a flipped bit in the number is damage, not a newer version.
    if (format != kFormat)
        return make_error(Errc::unsupported,
                          fmt::format("the state file has format {}, this version reads {}: start the "
                                      "version that wrote it",
                                      format, kFormat));
    PersistentState state;
    std::string_view rest = text.substr(first_end + 1, checksum_at - first_end - 1);
    for (const std::string_view expected : kKeys) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || line.substr(0, space) != expected ||
            !set_field(state, expected, line.substr(space + 1)))
            return corrupt("the state file has no valid \"" + std::string(expected) + "\"");
        rest.remove_prefix(line.size() + 1);
    }
    if (!rest.empty()) return corrupt("the state file has lines that do not belong there");
    return state;
}

StateDirectory::StateDirectory(std::string path, std::string domain_uuid, int directory_fd, int lock_fd)
    : path_(std::move(path)), domain_uuid_(std::move(domain_uuid)), directory_fd_(directory_fd), lock_fd_(lock_fd)
{
}

StateDirectory::~StateDirectory()
{
    close(lock_fd_);
    close(directory_fd_);
}

Result<std::unique_ptr<StateDirectory>> StateDirectory::open(const std::string& path, const std::string& domain_uuid)
{
    if (path.empty() || path.front() != '/')
        return make_error(Errc::invalid, "the state directory must be an absolute path");
    if (domain_uuid.size() != 36) return make_error(Errc::invalid, "the state directory needs the domain's UUID");
    if (auto made = make_directories(path); !made) return made.error();
    Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) return errno_error("open " + path, errno);
    Fd lock(openat(directory.get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock.valid()) return errno_error("open " + path + "/lock", errno);
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return make_error(Errc::refused,
                              path + " is in use by another colod; one state directory serves one domain on one host");
        return errno_error("lock " + path + "/lock", errno);
    }
    std::unique_ptr<StateDirectory> self(new StateDirectory(path, domain_uuid, directory.release(), lock.release()));
    if (auto prepared = self->prepare(); !prepared) return prepared.error();
    return self;
}

Result<void> StateDirectory::prepare()
{
    remove_leftovers(directory_fd_);
    if (!exists(directory_fd_, kHostIdName)) {
        const std::string id = random_host_id();
        if (auto made = replace_file(directory_fd_, kHostIdName, id + "\n", path_); !made) return made;
    }
    const auto id = read_whole(directory_fd_, kHostIdName, path_ + "/" + kHostIdName);
    if (!id) return id.error();
    host_id_ = id->substr(0, id->find('\n'));
    if (!is_host_id(host_id_) || id->size() != 33)
        return make_error(
            Errc::corrupt,
            path_ + "/host-id is damaged. While no failover is under way it may be removed; a new one is made");
    return {};
}

Result<PersistentState> StateDirectory::load() const
{
    const std::string what = path_ + "/" + kStateName;
    if (!exists(directory_fd_, kStateName)) {
        PersistentState fresh;
        fresh.domain_uuid = domain_uuid_;
        return fresh;
    }
    const auto text = read_whole(directory_fd_, kStateName, what);
    if (!text) return text.error();
    auto state = decode_state(*text);
    if (!state) return with_context(what, state.error());
    if (state->domain_uuid != domain_uuid_)
        return make_error(Errc::refused, what + " belongs to domain " + state->domain_uuid + ", not to " +
                                             domain_uuid_ + ": each domain needs a state.directory of its own");
    return state;
}

Result<void> StateDirectory::store(const PersistentState& state)
{
    if (state.domain_uuid != domain_uuid_)
        return make_error(Errc::invalid, "state of domain " + state.domain_uuid + " does not belong into " + path_);
    if (!newest_) {
        const auto stored = load();
        if (!stored) return stored.error();
        newest_ = stored->generation;
    }
    if (state.generation < *newest_)
        return make_error(Errc::invalid,
                          fmt::format("the generation must not fall from {} to {}", *newest_, state.generation));
    // Taken as reached even if the write fails: it may have reached the disk.
    newest_ = state.generation;
    return replace_file(directory_fd_, kStateName, encode_state(state), path_);
}

}  // namespace colo
