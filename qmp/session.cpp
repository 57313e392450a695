// SPDX-License-Identifier: Apache-2.0
#include "qmp/session.h"

#include "core/log.h"

#include <algorithm>
#include <exception>

namespace colo::qmp {
namespace {

// The driver looks at the session anyway after a call; only what happens in between needs on_activity.
class CallScope {
public:
    explicit CallScope(bool& flag) : flag_(flag), outer_(flag) { flag_ = true; }
    CallScope(const CallScope&) = delete;
    CallScope& operator=(const CallScope&) = delete;
    ~CallScope() { flag_ = outer_; }

private:
    bool& flag_;
    bool outer_;
};

std::string quoted_member(std::string_view name)
{
    return "QMP input member '" + std::string(name) + "'";
}

}  // namespace

Session::Session(const Registry& registry) : registry_(registry), fds_(registry.fds()), id_(fds_->open_monitor()) {}

Session::~Session()
{
    fds_->close_monitor(id_);
}

std::shared_ptr<Session> Session::make(const Registry& registry, const schema::VersionInfo& version)
{
    std::shared_ptr<Session> session(new Session(registry));
    schema::Object hello{{"version", schema::encode(version)}, {"capabilities", schema::Array{"oob"}}};
    session->send(schema::Object{{"QMP", std::move(hello)}});
    return session;
}

void Session::send(const schema::Object& message)
{
    output_ += to_json(message);
    output_ += "\r\n";
}

std::string Session::take_output()
{
    std::string result = std::move(output_);
    output_.clear();
    return result;
}

bool Session::may_parse() const
{
    if (output_.size() >= kBusyOutput) return false;
    return oob_ ? queue_.size() < kMaxQueuedRequests : queue_.empty() && !busy_;
}

bool Session::runnable() const
{
    return !busy_ && output_.size() < kBusyOutput && (!queue_.empty() || !unparsed().empty());
}
bool Session::wants_input() const
{
    return unparsed().empty() && may_parse();
}
bool Session::idle() const
{
    return !busy_ && queue_.empty() && unparsed().empty() && output_.empty();
}

void Session::feed(std::string_view bytes, std::vector<Fd> fds)
{
    const CallScope scope(in_call_);
    if (!fds.empty()) keep_fds(bytes, std::move(fds));
    drop_parsed();
    input_.append(bytes);
    parse();
}

void Session::keep_fds(std::string_view bytes, std::vector<Fd> fds)
{
    const std::uint64_t start = parsed_ + unparsed().size();
    arrivals_.push_back({start, start + bytes.find_last_not_of(" \t\r\n") + 1, WaitingFds(fds_, std::move(fds))});
    std::size_t waiting = 0;
    for (auto arrival = arrivals_.rbegin(); arrival != arrivals_.rend(); ++arrival) {
        if (waiting + arrival->fds.size() > kMaxWaitingFds) arrival->fds.keep(kMaxWaitingFds - waiting);
        waiting += arrival->fds.size();
    }
    std::erase_if(arrivals_, [](const Arrival& arrival) { return arrival.fds.size() == 0; });
}

WaitingFds Session::fds_of_message(std::uint64_t end)
{
    WaitingFds result;
    while (!arrivals_.empty() && arrivals_.front().start < end && arrivals_.front().end <= end) {
        result.append(std::move(arrivals_.front().fds));
        arrivals_.pop_front();
    }
    return result;
}

// Not after each request: many that came together would each move the others.
void Session::drop_parsed()
{
    input_.erase(0, input_at_);
    input_at_ = 0;
}

void Session::parse()
{
    std::string_view rest = unparsed();
    while (!rest.empty() && may_parse()) {
        auto message = parser_.next(rest);
        if (message) accept(std::move(*message), fds_of_message(parsed_ + unparsed().size() - rest.size()));
    }
    const std::size_t taken = unparsed().size() - rest.size();
    parsed_ += taken;
    input_at_ += taken;
    if (input_at_ == input_.size()) drop_parsed();
}

void Session::accept(Result<schema::Value> message, WaitingFds fds)
{
    if (!message) {
        queue_.emplace_back(Failure{message.error(), std::nullopt});
        return;
    }
    schema::Object* object = message->as_object();
    if (object == nullptr) {
        queue_.emplace_back(Failure{"QMP input must be a JSON object", std::nullopt});
        return;
    }
    if (auto error = envelope_error(*object)) return refuse(*object, std::move(*error));
    Request request = take_request(*object);
    request.fds = std::move(fds);
    if (request.oob)
        dispatch(std::move(request));
    else
        queue_.emplace_back(std::move(request));
}

// A broken request that asks for out-of-band execution is answered at once, too.
void Session::refuse(const schema::Object& object, QmpError error)
{
    const schema::Value* found = object.find("id");
    auto id = found != nullptr ? std::optional(*found) : std::nullopt;
    if (oob_ && object.contains("exec-oob") && !object.contains("execute"))
        Reply(weak_from_this(), std::move(id), false).fail(std::move(error));
    else
        queue_.emplace_back(Failure{std::move(error), std::move(id)});
}

std::optional<QmpError> Session::envelope_error(const schema::Object& object) const
{
    std::string_view verb;
    for (const schema::Member& member : object.members()) {
        if (member.name == "execute" || (member.name == "exec-oob" && oob_)) {
            if (member.value.as_string() == nullptr) return QmpError(quoted_member(member.name) + " must be a string");
            if (!verb.empty())
                return QmpError(quoted_member(member.name) + " clashes with '" + std::string(verb) + "'");
            verb = member.name;
        } else if (member.name == "arguments") {
            if (member.value.as_object() == nullptr) return QmpError(quoted_member(member.name) + " must be an object");
        } else if (member.name != "id") {
            return QmpError(quoted_member(member.name) + " is unexpected");
        }
    }
    if (verb.empty()) return QmpError("QMP input lacks member 'execute'");
    return std::nullopt;
}

// What is large in a request is moved, never copied. `object` was found to be in order.
Session::Request Session::take_request(schema::Object& object)
{
    Request request;
    request.oob = object.contains("exec-oob");
    request.name = *object.find(request.oob ? "exec-oob" : "execute")->as_string();
    if (schema::Value* arguments = object.find("arguments")) request.arguments = std::move(*arguments->as_object());
    if (schema::Value* id = object.find("id")) request.id = std::move(*id);
    return request;
}

void Session::run_one()
{
    const CallScope scope(in_call_);
    if (!runnable()) return;
    if (queue_.empty()) parse();
    if (queue_.empty()) return;
    Entry entry = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    if (auto* failure = std::get_if<Failure>(&entry))
        Reply(weak_from_this(), std::move(failure->id), true).fail(std::move(failure->error));
    else
        dispatch(std::move(std::get<Request>(entry)));
    parse();
}

void Session::dispatch(Request request)
{
    using schema::QapiErrorClass;
    Reply reply(weak_from_this(), std::move(request.id), !request.oob, {id_, std::move(request.fds)});
    const bool capabilities = request.name == schema::commands::QmpCapabilities::kName;
    if (!negotiated_ && !capabilities)
        return reply.fail(
            {QapiErrorClass::CommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'"});
    if (capabilities && request.oob) return reply.fail("The command qmp_capabilities does not support OOB");
    if (capabilities) return negotiate(request.arguments, std::move(reply));

    const Registry::Command* command = registry_.find(request.name);
    if (command == nullptr)
        return reply.fail({QapiErrorClass::CommandNotFound, "The command " + request.name + " has not been found"});
    if (request.oob && !command->allow_oob) return reply.fail("The command " + request.name + " does not support OOB");
    try {
        command->handler(request.arguments, std::move(reply));
    } catch (const std::exception& error) {  // the reply has answered by being destroyed
        spdlog::error("command {} failed: {}", request.name, error.what());
    }
}

void Session::negotiate(const schema::Object& arguments, Reply reply)
{
    const auto decoded = schema::decode_arguments<schema::commands::QmpCapabilities::Arguments>(arguments);
    if (!decoded) return reply.fail(decoded.error());
    if (negotiated_)
        return reply.fail(
            {schema::QapiErrorClass::CommandNotFound, "Capabilities negotiation is already complete, command ignored"});
    negotiated_ = true;
    oob_ = decoded->enable.has_value() && !decoded->enable->empty();
    reply.succeed();
}

void Session::deliver(schema::Object message, bool in_band)
{
    send(message);
    if (in_band) busy_ = false;
    if (!in_call_ && on_activity) on_activity();
}

void Session::send_event(std::string_view line)
{
    if (!negotiated_ || overflowed_) return;
    if (output_.size() + line.size() > kMaxPendingOutput)
        overflowed_ = true;
    else
        output_ += line;
    if (!in_call_ && on_activity) on_activity();
}

}  // namespace colo::qmp
