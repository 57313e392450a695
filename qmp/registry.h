// SPDX-License-Identifier: Apache-2.0
#pragma once

// The commands that are served, by name. Handlers are added once, before the first session; they get decoded arguments
// and the reply, run on the thread of the session, and must not block.

#include "qmp/reply.h"
#include "schema/codec.h"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace colo::qmp {

// Reply of a command whose result type is known.
template <class Returns>
class TypedReply {
public:
    explicit TypedReply(Reply reply) : reply_(std::move(reply)) {}
    MonitorId monitor() const { return reply_.monitor(); }
    Fd take_fd() { return reply_.take_fd(); }
    void succeed(const Returns& result) { reply_.succeed(schema::encode(result)); }
    void fail(QmpError error) { reply_.fail(std::move(error)); }

private:
    Reply reply_;
};

template <>
class TypedReply<void> {
public:
    explicit TypedReply(Reply reply) : reply_(std::move(reply)) {}
    MonitorId monitor() const { return reply_.monitor(); }
    Fd take_fd() { return reply_.take_fd(); }
    void succeed() { reply_.succeed(); }
    void fail(QmpError error) { reply_.fail(std::move(error)); }
    // For operations that report a Result.
    void complete(const Result<void>& result) { result ? succeed() : fail(result.error()); }

private:
    Reply reply_;
};

class Registry {
public:
    using Handler = std::function<void(const schema::Object& arguments, Reply reply)>;
    struct Command {
        Handler handler;
        bool allow_oob = false;
    };

    // The name must be new.
    void add_raw(std::string_view name, Handler handler, bool allow_oob = false);

    // Command is a tag of schema::commands; handler(const Arguments&, TypedReply<Returns>). A command whose condition
    // is off in this build is left out.
    template <class Command, class TypedHandler>
    void add(TypedHandler handler)
    {
        if constexpr (!Command::kServed) return;
        add_raw(
            Command::kName,
            [handler = std::move(handler)](const schema::Object& object, Reply reply) {
                auto arguments = schema::decode_arguments<typename Command::Arguments>(object);
                if (!arguments) return reply.fail(arguments.error());
                handler(*arguments, TypedReply<typename Command::Returns>(std::move(reply)));
            },
            allow_oob(Command::kName));
    }

    const Command* find(std::string_view name) const;
    std::vector<std::string> names() const;  // qmp_capabilities, which sessions serve themselves, included

    // Names of the schema's commands that have no handler.
    std::vector<std::string> missing() const;

    // What clients handed over; sessions keep it alive.
    const std::shared_ptr<FdStore>& fds() const { return fds_; }

private:
    static bool allow_oob(std::string_view name);
    std::map<std::string, Command, std::less<>> commands_;
    std::shared_ptr<FdStore> fds_ = std::make_shared<FdStore>();
};

// query-commands and query-qmp-schema, which only the registry can answer.
void add_introspection(Registry& registry);

}  // namespace colo::qmp
